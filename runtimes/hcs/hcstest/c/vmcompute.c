/* vmcompute.dll: layers on disk, and the old door to the network service. */
#include "rpc.h"
#include <combaseapi.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
	DWORD flavour;
	PCWSTR home; /* hcsshim leaves it empty: IDs are whole paths */
} driver;

typedef struct {
	GUID id;
	DWORD flags;
	PCWSTR path;
} layer;

EXPORT HRESULT WINAPI HNSCall(PCWSTR method, PCWSTR path, PCWSTR object, PWSTR *response)
{
	return rpc("HNSCall", "sssS", method, path, object, response);
}

EXPORT HRESULT WINAPI NameToGuid(PCWSTR name, GUID *id)
{
	ULONG64 half[2] = {0};
	HRESULT hr = rpc("NameToGuid", "sII", name, &half[0], &half[1]);
	memcpy(id, half, sizeof *id);
	return hr;
}

/* paths joins those of layers, a line each. */
static PWSTR paths(const layer *layers, SIZE_T n)
{
	SIZE_T i, room = 1;
	PWSTR out;
	for (i = 0; i < n; i++)
		room += wcslen(layers[i].path) + 1;
	out = calloc(room, sizeof *out);
	for (i = 0; out && i < n; i++) {
		if (i)
			wcscat(out, L"\n");
		wcscat(out, layers[i].path);
	}
	return out;
}

static HRESULT with_layers(const char *name, PCWSTR id, PCWSTR from, const layer *layers, SIZE_T n)
{
	PWSTR lines = paths(layers, n);
	HRESULT hr = rpc(name, "sss", id, from, lines);
	free(lines);
	return hr;
}

#define LAYER(name) \
	EXPORT HRESULT WINAPI name(const driver *d, PCWSTR id) { (void)d; return rpc(#name, "s", id); }
LAYER(ActivateLayer)
LAYER(DeactivateLayer)
LAYER(DestroyLayer)
LAYER(UnprepareLayer)

EXPORT HRESULT WINAPI CreateSandboxLayer(const driver *d, PCWSTR id, ULONG_PTR parent, const layer *layers, SIZE_T n)
{
	(void)d;
	(void)parent;
	return with_layers("CreateSandboxLayer", id, NULL, layers, n);
}

EXPORT HRESULT WINAPI PrepareLayer(const driver *d, PCWSTR id, const layer *layers, SIZE_T n)
{
	(void)d;
	return with_layers("PrepareLayer", id, NULL, layers, n);
}

EXPORT HRESULT WINAPI ImportLayer(const driver *d, PCWSTR id, PCWSTR from, const layer *layers, SIZE_T n)
{
	(void)d;
	return with_layers("ImportLayer", id, from, layers, n);
}

EXPORT HRESULT WINAPI ExpandSandboxSize(const driver *d, PCWSTR id, ULONG64 size)
{
	(void)d;
	return rpc("ExpandSandboxSize", "si", id, size);
}

EXPORT HRESULT WINAPI LayerExists(const driver *d, PCWSTR id, DWORD *exists)
{
	ULONG64 v = 0;
	HRESULT hr = rpc("LayerExists", "sI", id, &v);
	(void)d;
	*exists = (DWORD)v;
	return hr;
}

/* Called twice: for the length, and for the text. */
EXPORT HRESULT WINAPI GetLayerMountPath(const driver *d, PCWSTR id, SIZE_T *length, PWSTR to)
{
	PWSTR path = NULL;
	HRESULT hr = rpc("GetLayerMountPath", "sS", id, &path);
	(void)d;
	if (SUCCEEDED(hr) && path) {
		SIZE_T need = wcslen(path) + 1;
		if (to && *length >= need)
			memcpy(to, path, need * sizeof *to);
		*length = need;
	}
	CoTaskMemFree(path);
	return hr;
}

EXPORT HRESULT WINAPI ProcessBaseImage(PCWSTR path) { return rpc("ProcessBaseImage", "s", path); }
EXPORT HRESULT WINAPI ProcessUtilityImage(PCWSTR path) { return rpc("ProcessUtilityImage", "s", path); }
EXPORT HRESULT WINAPI GrantVmAccess(PCWSTR vm, PCWSTR file) { return rpc("GrantVmAccess", "ss", vm, file); }
