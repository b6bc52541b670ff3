// Package substitute puts values in place of ${variables} in text.
//
//	kustomize's output ──► [ render/substitute ] ──► manifest
//
// In: text and variables. Out: the text with values, or why not. The expressions
// are those of Flux's postBuild.substitute, which are a part of bash's:
//
//	${var}  ${#var}  ${var^}  ${var^^}  ${var,}  ${var,,}  ${var:n}  ${var:n:len}
//	${var-default}  ${var:-default}  ${var=default}  ${var:=default}
//	${var#pattern}  ${var##pattern}  ${var%pattern}  ${var%%pattern}
//	${var/pattern/with}  ${var//pattern/with}  ${var/#pattern/with}  ${var/%pattern/with}
//
// $${var} is ${var} as it is, and $var stays. Unlike Flux, a variable that has
// neither a value nor a default is an error: an empty image tag or host name
// would otherwise reach what runs. It refuses to know YAML.
package substitute

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of one text, so that no expression can make it large.
const (
	MaxBytes  = 1 << 20 // of a result
	MaxNested = 10      // expressions inside expressions
)

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*`)

// ValidName says whether a variable can be called so.
func ValidName(name string) bool {
	return name != "" && variable.FindString(name) == name
}

// An UnsetError is a variable that has neither a value nor a default.
type UnsetError struct{ Name string }

// Error implements error.
func (e *UnsetError) Error() string { return "variable " + e.Name + " has no value" }

var errUnclosed = errors.New("${ is not closed with }")

// Text is text with the values of vars. Text without "${" comes back as it is.
func Text(text string, vars map[string]string) (string, error) {
	if !strings.Contains(text, "${") {
		return text, nil
	}
	e := &expander{vars: vars}
	out, rest, err := e.until(text, false, 0)
	if err == nil && rest != "" {
		err = errUnclosed
	}
	return out, err
}

type expander struct {
	vars  map[string]string
	spent int
}

// until expands text; inside an expression, up to the "}" that closes it, which
// rest begins with.
func (e *expander) until(text string, inside bool, depth int) (out, rest string, err error) {
	if depth > MaxNested {
		return "", "", fmt.Errorf("expressions are nested deeper than %d", MaxNested)
	}
	var b strings.Builder
	for text != "" {
		switch {
		case strings.HasPrefix(text, "$${"):
			b.WriteString("${")
			text = text[3:]
		case strings.HasPrefix(text, "${"):
			var value string
			if value, text, err = e.expression(text[2:], depth+1); err != nil {
				return "", "", err
			}
			b.WriteString(value)
		case inside && text[0] == '}':
			return b.String(), text, nil
		default:
			b.WriteByte(text[0])
			text = text[1:]
		}
		if e.spent += 1; b.Len() > MaxBytes || e.spent > 4*MaxBytes {
			return "", "", fmt.Errorf("the result has more than %d bytes", MaxBytes)
		}
	}
	if inside {
		return "", "", errUnclosed
	}
	return b.String(), "", nil
}

// expression is what follows "${"; rest is what follows its "}".
func (e *expander) expression(text string, depth int) (out, rest string, err error) {
	length := strings.HasPrefix(text, "#")
	if length {
		text = text[1:]
	}
	name := variable.FindString(text)
	if name == "" {
		return "", "", errors.New("${ is not followed by a variable's name; write $${ for the characters themselves")
	}
	text = text[len(name):]
	value, set := e.vars[name]
	if length {
		if !strings.HasPrefix(text, "}") {
			return "", "", fmt.Errorf("${#%s is not closed with }", name)
		}
		return e.close(strconv.Itoa(utf8.RuneCountInString(value)), text, name, set)
	}
	for _, op := range []string{":-", ":=", "-", "="} {
		after, ok := strings.CutPrefix(text, op)
		if !ok {
			continue
		}
		otherwise, rest, err := e.until(after, true, depth)
		if errors.As(err, new(*UnsetError)) && set && (value != "" || op[0] != ':') {
			// The default isn't used: that it has no value is no matter, but where
			// it ends must be known.
			rest, err = skip(after)
		}
		if err != nil {
			return "", "", err
		}
		if set && (value != "" || op[0] != ':') {
			otherwise = value
		}
		return e.close(otherwise, rest, name, true)
	}
	for _, op := range []string{"+", ":+", "?", ":?", "@", "!"} {
		if strings.HasPrefix(text, op) {
			return "", "", fmt.Errorf("${%s%s…} is not supported", name, op)
		}
	}
	value, rest, err = e.changed(value, text, depth)
	if err != nil {
		return "", "", fmt.Errorf("${%s…}: %w", name, err)
	}
	return e.close(value, rest, name, set)
}

func (e *expander) close(value, rest, name string, set bool) (out, after string, err error) {
	after, ok := strings.CutPrefix(rest, "}")
	switch {
	case !ok:
		return "", "", errUnclosed
	case !set:
		return "", "", &UnsetError{Name: name}
	}
	return value, after, nil
}

// skip is the text from the "}" that closes an expression on.
func skip(text string) (rest string, err error) {
	for depth := 0; text != ""; {
		switch {
		case strings.HasPrefix(text, "$${"):
			text = text[3:]
		case strings.HasPrefix(text, "${"):
			depth, text = depth+1, text[2:]
		case text[0] == '}' && depth == 0:
			return text, nil
		default:
			if text[0] == '}' {
				depth--
			}
			text = text[1:]
		}
	}
	return "", errUnclosed
}

// changed applies the operator that text begins with; rest begins with "}".
func (e *expander) changed(value, text string, depth int) (out, rest string, err error) {
	switch {
	case strings.HasPrefix(text, "}"):
		return value, text, nil
	case strings.HasPrefix(text, "^^"):
		return strings.ToUpper(value), text[2:], nil
	case strings.HasPrefix(text, ",,"):
		return strings.ToLower(value), text[2:], nil
	case strings.HasPrefix(text, "^"), strings.HasPrefix(text, ","):
		_, n := utf8.DecodeRuneInString(value)
		first := strings.ToUpper(value[:n])
		if text[0] == ',' {
			first = strings.ToLower(value[:n])
		}
		return first + value[n:], text[1:], nil
	}
	operand, rest, err := e.until(text, true, depth)
	if err != nil {
		return "", "", err
	}
	switch {
	case strings.HasPrefix(operand, ":"):
		out, err = part(value, operand[1:])
	case strings.HasPrefix(operand, "#"), strings.HasPrefix(operand, "%"):
		out, err = strip(value, operand)
	case strings.HasPrefix(operand, "/"):
		out, err = replace(value, operand[1:])
	case operand == "":
		return "", "", errUnclosed
	default:
		err = fmt.Errorf("no operator begins with %q", operand[:1])
	}
	if len(out) > MaxBytes {
		err = fmt.Errorf("the result has more than %d bytes", MaxBytes)
	}
	return out, rest, err
}

// part is "n" or "n:len" of the value's characters.
func part(value, operand string) (string, error) {
	from, length, limited := strings.Cut(operand, ":")
	n, err := strconv.Atoi(strings.TrimSpace(from))
	if err != nil || n < 0 {
		return "", fmt.Errorf("want a position of 0 or more, got %q", from)
	}
	runes := []rune(value)
	runes = runes[min(n, len(runes)):]
	if limited {
		m, err := strconv.Atoi(strings.TrimSpace(length))
		if err != nil || m < 0 {
			return "", fmt.Errorf("want a length of 0 or more, got %q", length)
		}
		runes = runes[:min(m, len(runes))]
	}
	return string(runes), nil
}

// strip removes the shortest (#, %) or longest (##, %%) match at an end.
func strip(value, operand string) (string, error) {
	long := len(operand) > 1 && operand[1] == operand[0]
	pattern := operand[1:]
	if long {
		pattern = operand[2:]
	}
	re, err := regexp.Compile(`(?s)\A(?:` + glob(pattern, long) + `)`)
	if operand[0] == '%' {
		re, err = regexp.Compile(`(?s)\A(?:` + glob(pattern, true) + `)\z`)
	}
	if err != nil {
		return "", fmt.Errorf("%q is no pattern", pattern)
	}
	if operand[0] == '#' {
		return value[len(re.FindString(value)):], nil
	}
	// From the end the shortest match begins last.
	best := len(value)
	for i := len(value); i >= 0 && len(value) <= 4096; i-- {
		if re.MatchString(value[i:]) {
			if best = i; !long {
				break
			}
		}
	}
	if len(value) > 4096 {
		return "", errors.New("the value has more than 4096 bytes, too many to look for a pattern from the end")
	}
	return value[:best], nil
}

// replace is "pattern/with", "/pattern/with" for all, "#pattern/with" at the
// beginning and "%pattern/with" at the end. "\/" is a slash of the pattern.
func replace(value, operand string) (string, error) {
	mode := byte(0)
	if operand != "" && strings.IndexByte("/#%", operand[0]) >= 0 {
		mode, operand = operand[0], operand[1:]
	}
	cut := len(operand)
	for i := 0; i < len(operand); i++ {
		if operand[i] == '\\' {
			i++
		} else if operand[i] == '/' {
			cut = i
			break
		}
	}
	pattern, with := operand[:cut], strings.TrimPrefix(operand[cut:], "/")
	if pattern == "" && mode != '#' && mode != '%' {
		return value, nil
	}
	text := glob(pattern, true)
	switch mode {
	case '#':
		text = `\A(?:` + text + `)`
	case '%':
		text = `(?:` + text + `)\z`
	}
	re, err := regexp.Compile("(?s)" + text)
	if err != nil {
		return "", fmt.Errorf("%q is no pattern", pattern)
	}
	if mode == '/' {
		if strings.Count(value, "")*len(with) > MaxBytes {
			return "", fmt.Errorf("the result has more than %d bytes", MaxBytes)
		}
		return re.ReplaceAllLiteralString(value, with), nil
	}
	at := re.FindStringIndex(value)
	if at == nil {
		return value, nil
	}
	return value[:at[0]] + with + value[at[1]:], nil
}

// glob is a pattern of bash as a regular expression: * ? [set] and \ are special.
func glob(pattern string, long bool) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			b.WriteString(".*")
			if !long {
				b.WriteByte('?')
			}
		case '?':
			b.WriteByte('.')
		case '[':
			end := strings.IndexByte(pattern[i:], ']')
			if end < 2 {
				b.WriteString(`\[`)
				continue
			}
			set := pattern[i+1 : i+end]
			if set[0] == '!' {
				set = "^" + set[1:]
			}
			b.WriteString("[" + strings.ReplaceAll(strings.ReplaceAll(set, `\`, `\\`), "[", `\[`) + "]")
			i += end
		case '\\':
			if i++; i < len(pattern) {
				b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
			}
		default:
			if c < utf8.RuneSelf {
				b.WriteString(regexp.QuoteMeta(string(rune(c))))
			} else {
				b.WriteByte(c)
			}
		}
	}
	return b.String()
}
