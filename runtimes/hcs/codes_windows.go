package hcs

import "errors"

// isCode says whether an error is one of these answers.
func isCode(err error, codes ...uint32) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if normal(e.Code) == c {
			return true
		}
	}
	return false
}

// isGone says whether what was asked for isn't there any more.
func isGone(err error) bool {
	return isCode(err, codeNoSuchSystem, codeStopped, codeProcessStopped, codeNotFound)
}
