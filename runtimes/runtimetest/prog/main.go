// Prog is what the conformance suite runs in containers. Its arguments say what
// to do, one after another:
//
//	say TEXT        print a line to standard output
//	warn TEXT       print a line to standard error
//	hush            close standard output
//	env             print the environment
//	args REST…      print the rest of the arguments, one a line
//	read FILE       print a file
//	stubborn        ignore the request to end
//	sleep DURATION  do nothing for that long
//	serve ADDR FILE answer GET /ready on ADDR: 200 while FILE exists, else 503; goes on in the background
//	touch FILE      make a file
//	append FILE TEXT  write TEXT and a space to the end of a file
//	remove FILE     remove a file
//	until FILE      wait for a file and remove it
//	count FILE      count the calls in a file and print the number
//	finally FILE TEXT  once asked to end, append TEXT to a file
//	wait            until it is asked to end
//	exit N          end with that code
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "prog:", err)
		code = 64
	}
	os.Exit(code)
}

func run(args []string) (int, error) { //nolint:funlen // one case a word that it knows
	next := func() string {
		if len(args) == 0 {
			return ""
		}
		a := args[0]
		args = args[1:]
		return a
	}
	last := func() error { return nil }
	for len(args) > 0 {
		var err error
		switch verb := next(); verb {
		case "say":
			fmt.Println(next())
		case "warn":
			fmt.Fprintln(os.Stderr, next())
		case "hush":
			err = os.Stdout.Close()
		case "env":
			for _, e := range os.Environ() {
				fmt.Println(e)
			}
		case "args":
			for _, a := range args {
				fmt.Println(a)
			}
			args = nil
		case "read":
			var b []byte
			b, err = os.ReadFile(next())
			os.Stdout.Write(b)
		case "stubborn":
			// Taken and not looked at: Windows ends a program that merely ignores it.
			signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, os.Interrupt)
		case "sleep":
			var d time.Duration
			d, err = time.ParseDuration(next())
			time.Sleep(d)
		case "serve":
			serve(next(), next())
		case "append":
			err = appendTo(next(), next())
		case "finally":
			path, text := next(), next()
			last = func() error { return appendTo(path, text) }
		case "touch":
			err = os.WriteFile(next(), nil, 0o644)
		case "remove":
			err = os.Remove(next())
		case "until":
			for path := next(); ; time.Sleep(5 * time.Millisecond) {
				if os.Remove(path) == nil {
					break
				}
			}
		case "count":
			path := next()
			b, _ := os.ReadFile(path)
			b = append(b, '.')
			fmt.Println(len(b))
			err = os.WriteFile(path, b, 0o644)
		case "wait":
			ended := make(chan os.Signal, 1)
			signal.Notify(ended, syscall.SIGTERM, os.Interrupt)
			<-ended
			return 0, last()
		case "exit":
			return strconv.Atoi(next())
		default:
			return 0, fmt.Errorf("what is %q?", verb)
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text + " ")
	return err
}

func serve(addr, file string) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(file); err != nil {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	go func() {
		fmt.Fprintln(os.Stderr, "prog:", http.ListenAndServe(addr, h))
		os.Exit(65)
	}()
}
