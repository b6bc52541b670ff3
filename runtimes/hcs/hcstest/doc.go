// Package hcstest makes a Windows machine of a Linux one, for tests: Wine with a
// double of the compute and network services.
//
//	test ──► [ hcstest ] ──► Wine: the program under test ──► stub DLLs ──► broker
//
// In: nothing but wine64 and a C compiler for Windows. Out: a Machine on which
// Windows programs run that call computecore.dll, computenetwork.dll and
// vmcompute.dll. It shows that our programs call them as we mean to; it can't
// show that Windows takes what they say. c/ has the stubs, broker/ what they
// call.
package hcstest
