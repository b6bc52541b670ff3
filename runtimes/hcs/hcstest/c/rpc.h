/* Every export of the doubles is one call to the broker, over TCP on loopback:
 *
 *   runtimes/hcs ──► [ computecore.dll … ] ──TCP──► broker
 *
 * A request is its length, the caller's process, a name and arguments; an
 * answer its length, an HRESULT and values. Numbers are little-endian; a text
 * is its length in UTF-16 units and the units, or ~0 for none.
 */
#ifndef TANDEM_RPC_H
#define TANDEM_RPC_H

#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>
#include <windows.h>

#define EXPORT __declspec(dllexport)
#define SERVICE_NOT_AVAILABLE ((HRESULT)0x80370114)

/* rpc calls the broker. shape says what follows: i a number, s a text, and as
 * results I (ULONG64 *) and S (PWSTR *, of CoTaskMemAlloc); either may be NULL. */
HRESULT rpc(const char *name, const char *shape, ...);

/* A stream is a connection on which the broker goes on to send events. */
SOCKET rpc_open(const char *name, const char *shape, ...);
/* rpc_event waits for the next; 0 when the connection has ended. The text is
 * the caller's to free. */
int rpc_event(SOCKET s, ULONG *type, PWSTR *text);

#endif
