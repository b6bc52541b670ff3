package tree

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// checkHostile refuses names that no honest program writes into a tree: they
// exist to be mistaken for something else. A directory that holds one is not
// read at all.
func checkHostile(name string) error {
	switch {
	case name == "":
		return errors.New("an entry has an empty name")
	case name == "." || name == "..":
		return fmt.Errorf("an entry is named %q", name)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("the entry %q has a slash or a NUL byte in its name", name)
	case !utf8.ValidString(name):
		return fmt.Errorf("the name of entry %q is not UTF-8", name)
	case len(name) > MaxName:
		return fmt.Errorf("the name of entry %q… is longer than %d bytes (limit tree.MaxName)", name[:32], MaxName)
	case gitLike(name):
		return fmt.Errorf("the entry %q pretends to be Git's own directory", name)
	}
	return nil
}

// gitLike says whether some file system takes the name for .git: by case, by
// NTFS's short name, trailing dots and streams, or by the characters that HFS+
// ignores.
func gitLike(name string) bool {
	n := strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	n, _, _ = strings.Cut(strings.ToLower(n), ":")
	n = strings.TrimRight(n, ". ")
	return n == ".git" || n == "git~1"
}

// checkPortable refuses names that one of the two operating systems would take
// for something else. Only that file can't be read.
func checkPortable(name string) error {
	if strings.Contains(name, `\`) {
		return errors.New("its name has a backslash, which Windows takes for a separator")
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return r < 0x20 || strings.ContainsRune(`<>:"|?*`, r) }); i >= 0 {
		return fmt.Errorf("its name has the character %q, which Windows can't have in names", name[i])
	}
	if strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") {
		return errors.New("its name ends in a dot or a space, which Windows drops")
	}
	stem, _, _ := strings.Cut(strings.ToUpper(name), ".")
	stem = strings.TrimRight(stem, " ")
	switch stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return fmt.Errorf("%s is the name of a device on Windows", stem)
	}
	for _, device := range [...]string{"COM", "LPT"} {
		if digit, ok := strings.CutPrefix(stem, device); ok && len([]rune(digit)) == 1 && strings.Contains("0123456789¹²³", digit) { //nolint:gocritic // the constant is what is looked in //nolint:gocritic // the constant is what is looked in
			return fmt.Errorf("%s is the name of a device on Windows", stem)
		}
	}
	return nil
}
