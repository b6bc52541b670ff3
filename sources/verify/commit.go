package verify

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxCommit is how many bytes of a commit are looked at.
const maxCommit = 1 << 20

// Parsed is what the signed part of a commit says. It is read by a parser of its
// own, stricter than Git's: what two programs might read differently is refused.
type Parsed struct {
	Tree    string
	Parents []string
	When    time.Time // the committer's

	payload   []byte // what the signature is over
	signature string
}

// Parse reads a commit's bytes.
func Parse(raw []byte) (*Parsed, error) {
	if len(raw) > maxCommit {
		return nil, fmt.Errorf("the commit has more than %d bytes", maxCommit)
	}
	head, _, ok := bytes.Cut(raw, []byte("\n\n"))
	if !ok {
		return nil, errors.New("the commit has no empty line after its header")
	}
	head = raw[:len(head)+1]
	if bytes.IndexByte(head, 0) >= 0 || bytes.IndexByte(head, '\r') >= 0 {
		return nil, errors.New("the commit's header holds a zero byte or a carriage return")
	}
	p := &Parsed{}
	r := headers{rest: string(head)}
	if err := r.identity(p); err != nil {
		return nil, err
	}
	if err := r.others(p); err != nil {
		return nil, err
	}
	p.payload = append([]byte(r.kept.String()), raw[len(head):]...)
	return p, nil
}

// headers reads header lines in the one order in which Git writes them.
type headers struct {
	rest string
	kept strings.Builder // all but the signature
}

// next is the next header, its continuation lines included.
func (r *headers) next() (name, value, text string) {
	end := 0
	for {
		i := strings.IndexByte(r.rest[end:], '\n')
		if i < 0 {
			end = len(r.rest)
			break
		}
		if end += i + 1; end >= len(r.rest) || r.rest[end] != ' ' {
			break
		}
	}
	text, r.rest = r.rest[:end], r.rest[end:]
	name, value, _ = strings.Cut(strings.TrimSuffix(text, "\n"), " ")
	return name, value, text
}

// identity reads tree, parents, author and committer.
func (r *headers) identity(p *Parsed) error {
	name, value, text := r.next()
	if name != "tree" || !isHash(value) {
		return errors.New("the commit does not begin with its tree")
	}
	p.Tree = value
	r.kept.WriteString(text)
	for {
		if name, value, text = r.next(); name != "parent" {
			break
		}
		if !isHash(value) || len(value) != len(p.Tree) {
			return errors.New("a parent is no hash")
		}
		p.Parents = append(p.Parents, value)
		r.kept.WriteString(text)
	}
	for i, want := range []string{"author", "committer"} {
		if i > 0 {
			name, value, text = r.next()
		}
		when, err := personTime(value)
		if name != want || err != nil {
			return fmt.Errorf("want one %s with a time after the tree and the parents", want)
		}
		p.When = when
		r.kept.WriteString(text)
	}
	return nil
}

// others reads what may follow, and takes the signature out.
func (r *headers) others(p *Parsed) error {
	seen := map[string]bool{}
	for r.rest != "" {
		name, value, text := r.next()
		switch {
		case name == "mergetag":
		case name != "gpgsig" && name != "encoding":
			return fmt.Errorf("the commit has the header %.40q, which is not known", name)
		case seen[name]:
			return fmt.Errorf("the commit has the header %s twice", name)
		}
		seen[name] = true
		if name == "gpgsig" {
			p.signature = strings.ReplaceAll(value, "\n ", "\n")
			continue
		}
		r.kept.WriteString(text)
	}
	return nil
}

func isHash(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// personTime is the time in "Ada <ada@example.com> 1750000000 +0100".
func personTime(value string) (time.Time, error) {
	i := strings.LastIndex(value, "> ")
	if i < 0 || strings.Count(value, "<") != 1 || strings.Count(value, ">") != 1 || strings.Contains(value, "\n") {
		return time.Time{}, errors.New("want a name, an address in <> and a time")
	}
	seconds, zone, ok := strings.Cut(value[i+2:], " ")
	n, err := strconv.ParseInt(seconds, 10, 64)
	if !ok || err != nil || n < 0 || n > 1<<40 || len(zone) != 5 || zone[0] != '+' && zone[0] != '-' || strings.Trim(zone[1:], "0123456789") != "" {
		return time.Time{}, errors.New("want a time")
	}
	return time.Unix(n, 0), nil
}
