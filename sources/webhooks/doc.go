// Package webhooks takes what Git hosts say when somebody pushes.
//
//	GitHub, GitLab, Gitea, Forgejo, anything with a secret ──POST──► [ sources/webhooks ] ──hint──► sources
//
// In: requests from anybody. Out: hints that a repository may have something
// new: whoever gets one looks by itself, with its own credentials. Nothing of a
// request chooses a revision. It refuses to know which repositories are followed.
package webhooks
