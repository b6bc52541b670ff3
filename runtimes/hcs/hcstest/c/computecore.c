/* computecore.dll: compute systems and their processes. */
#include "rpc.h"
#include <combaseapi.h>
#include <stdlib.h>

typedef ULONG64 handle;

typedef struct {
	DWORD process, reserved;
	HANDLE in, out, err;
} process_information;

typedef struct {
	ULONG type;
	PCWSTR data;
	handle operation;
} event;

typedef void(CALLBACK *event_callback)(event *, void *);

#define SERVICE_DISCONNECT 0x02000000

EXPORT handle WINAPI HcsCreateOperation(void *context, void *callback)
{
	ULONG64 h = 0;
	(void)context;
	if (callback) { /* nobody needs it */
		SetLastError(ERROR_NOT_SUPPORTED);
		return 0;
	}
	SetLastError((DWORD)rpc("HcsCreateOperation", "I", &h));
	return h;
}

EXPORT void WINAPI HcsCloseOperation(handle op) { rpc("HcsCloseOperation", "i", op); }
EXPORT HRESULT WINAPI HcsCancelOperation(handle op) { return rpc("HcsCancelOperation", "i", op); }

EXPORT HRESULT WINAPI HcsWaitForOperationResult(handle op, DWORD timeout, PWSTR *result)
{
	return rpc("HcsWaitForOperationResult", "iiS", op, (ULONG64)timeout, result);
}

EXPORT HRESULT WINAPI HcsWaitForOperationResultAndProcessInfo(handle op, DWORD timeout, process_information *info, PWSTR *result)
{
	ULONG64 pid = 0, in = 0, out = 0, err = 0;
	HRESULT hr = rpc("HcsWaitForOperationResultAndProcessInfo", "iiIIIIS", op, (ULONG64)timeout, &pid, &in, &out, &err, result);
	if (info) {
		info->process = (DWORD)pid;
		info->reserved = 0;
		info->in = (HANDLE)in;
		info->out = (HANDLE)out;
		info->err = (HANDLE)err;
	}
	return hr;
}

EXPORT HRESULT WINAPI HcsEnumerateComputeSystems(PCWSTR query, handle op)
{
	return rpc("HcsEnumerateComputeSystems", "si", query, op);
}

EXPORT HRESULT WINAPI HcsGetServiceProperties(PCWSTR query, PWSTR *result)
{
	return rpc("HcsGetServiceProperties", "sS", query, result);
}

EXPORT HRESULT WINAPI HcsCreateComputeSystem(PCWSTR id, PCWSTR document, handle op, void *security, handle *system)
{
	(void)security;
	return rpc("HcsCreateComputeSystem", "ssiI", id, document, op, system);
}

EXPORT HRESULT WINAPI HcsOpenComputeSystem(PCWSTR id, DWORD access, handle *system)
{
	return rpc("HcsOpenComputeSystem", "siI", id, (ULONG64)access, system);
}

EXPORT void WINAPI HcsCloseComputeSystem(handle system) { rpc("HcsCloseComputeSystem", "i", system); }

#define SYSTEM(name)                                                    \
	EXPORT HRESULT WINAPI name(handle system, handle op, PCWSTR text) \
	{                                                               \
		return rpc(#name, "iis", system, op, text);             \
	}
SYSTEM(HcsStartComputeSystem)
SYSTEM(HcsShutDownComputeSystem)
SYSTEM(HcsTerminateComputeSystem)
SYSTEM(HcsPauseComputeSystem)
SYSTEM(HcsResumeComputeSystem)
SYSTEM(HcsGetComputeSystemProperties)
SYSTEM(HcsTerminateProcess)
SYSTEM(HcsSignalProcess)
SYSTEM(HcsGetProcessProperties)
SYSTEM(HcsModifyProcess)

EXPORT HRESULT WINAPI HcsModifyComputeSystem(handle system, handle op, PCWSTR document, HANDLE identity)
{
	(void)identity;
	return rpc("HcsModifyComputeSystem", "iis", system, op, document);
}

EXPORT HRESULT WINAPI HcsCreateProcess(handle system, PCWSTR parameters, handle op, void *security, handle *process)
{
	(void)security;
	return rpc("HcsCreateProcess", "isiI", system, parameters, op, process);
}

EXPORT HRESULT WINAPI HcsOpenProcess(handle system, DWORD pid, DWORD access, handle *process)
{
	return rpc("HcsOpenProcess", "iiiI", system, (ULONG64)pid, (ULONG64)access, process);
}

EXPORT void WINAPI HcsCloseProcess(handle process) { rpc("HcsCloseProcess", "i", process); }

EXPORT HRESULT WINAPI HcsGetProcessInfo(handle process, handle op) { return rpc("HcsGetProcessInfo", "ii", process, op); }

typedef struct {
	SOCKET from;
	event_callback call;
	void *context;
} watch;

/* follow hands events on until the broker ends the connection, which it says
 * first: without that word the service itself has gone. */
static DWORD WINAPI follow(void *arg)
{
	watch *w = arg;
	event e = {0};
	PWSTR text = NULL;
	ULONG type = 0;
	while (rpc_event(w->from, &type, &text)) {
		if (!type)
			goto over;
		e.type = type;
		e.data = text;
		w->call(&e, w->context);
		CoTaskMemFree(text);
		text = NULL;
	}
	e.type = SERVICE_DISCONNECT;
	e.data = NULL;
	w->call(&e, w->context);
over:
	CoTaskMemFree(text);
	closesocket(w->from);
	free(w);
	return 0;
}

static HRESULT follow_handle(const char *name, handle h, void *context, event_callback callback)
{
	watch *w;
	HANDLE thread;
	ULONG type;
	PWSTR text = NULL;
	if (!callback)
		return S_OK; /* what is still on its way finds no listener */
	w = calloc(1, sizeof *w);
	w->call = callback;
	w->context = context;
	w->from = rpc_open(name, "i", h);
	/* The first event says that the broker listens from now on. */
	if (w->from == INVALID_SOCKET || !rpc_event(w->from, &type, &text)) {
		free(w);
		return SERVICE_NOT_AVAILABLE;
	}
	CoTaskMemFree(text);
	if (type != 1) {
		closesocket(w->from);
		free(w);
		return (HRESULT)type;
	}
	thread = CreateThread(NULL, 0, follow, w, 0, NULL);
	if (!thread)
		return HRESULT_FROM_WIN32(GetLastError());
	CloseHandle(thread);
	return S_OK;
}

EXPORT HRESULT WINAPI HcsSetComputeSystemCallback(handle system, DWORD options, void *context, event_callback callback)
{
	(void)options;
	return follow_handle("HcsSetComputeSystemCallback", system, context, callback);
}

EXPORT HRESULT WINAPI HcsSetProcessCallback(handle process, DWORD options, void *context, event_callback callback)
{
	(void)options;
	return follow_handle("HcsSetProcessCallback", process, context, callback);
}
