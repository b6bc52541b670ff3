package hcs

// Codes for tests: each code that is known, with where.

// A Known is a code at a kind of calls.
type Known struct {
	Code   uint32
	Class  error
	Text   string
	Remedy string
}

// KnownAt are all codes that mean something where an op is done, and one that
// doesn't.
func KnownAt(name string) []Known {
	at := op(name).kind()
	var all []Known
	seen := map[uint32]bool{}
	for _, r := range table() {
		for _, code := range r.codes {
			if r.at&at != 0 && !seen[code] {
				seen[code] = true
				all = append(all, Known{code, r.class, r.text, r.remedy})
			}
		}
	}
	r := explain(at, 0xdeadbeef)
	return append(all, Known{0xdeadbeef, r.class, r.text, r.remedy})
}
