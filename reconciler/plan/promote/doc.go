// Package promote says whether a commit may pass from one branch to the next.
//
//	sources ──► render ──► reconciler ( plan: [ promote ] ) ──push──► sources
//
// In: a pipeline's state (what each stage runs, since when it has been healthy,
// what is open, who voted) and the time. Out: promotions to open, branches to
// move with the evidence, promotions that ended, what has to be found out, and
// when the answer changes by itself. It refuses to know how a branch is moved.
//
// A commit is tested as a tree: the promoted tree is the tested tree, and a
// rollback is a commit whose tree is the last good tree. A branch moves forward
// to the tested commit where it can, else to a merge commit with the tested
// tree.
//
// The newest tested commit whose gates pass goes; older ones are skipped. What
// restarts a soak is said at state.Trial. Soaks go by the steady clock, so that
// a wall clock that jumps skips none; windows, freezes and suspensions go by
// the wall clock.
package promote
