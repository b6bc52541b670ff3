/* computenetwork.dll: networks, endpoints, namespaces, load balancers, routes. */
#include "rpc.h"
#include <objbase.h>

typedef ULONG64 handle;

static PCWSTR text(const GUID *id, WCHAR *to)
{
	StringFromGUID2(id, to, 40);
	return to;
}

#define COMMON(one, many)                                                                       \
	EXPORT HRESULT WINAPI HcnEnumerate##many(PCWSTR query, PWSTR *found, PWSTR *error)       \
	{                                                                                       \
		return rpc("HcnEnumerate" #many, "sSS", query, found, error);                   \
	}                                                                                       \
	EXPORT HRESULT WINAPI HcnOpen##one(const GUID *id, handle *h, PWSTR *error)              \
	{                                                                                       \
		WCHAR b[40];                                                                    \
		return rpc("HcnOpen" #one, "sIS", text(id, b), h, error);                       \
	}                                                                                       \
	EXPORT HRESULT WINAPI HcnModify##one(handle h, PCWSTR settings, PWSTR *error)            \
	{                                                                                       \
		return rpc("HcnModify" #one, "isS", h, settings, error);                        \
	}                                                                                       \
	EXPORT HRESULT WINAPI HcnQuery##one##Properties(handle h, PCWSTR query, PWSTR *found, PWSTR *error) \
	{                                                                                       \
		return rpc("HcnQuery" #one, "isSS", h, query, found, error);                    \
	}                                                                                       \
	EXPORT HRESULT WINAPI HcnDelete##one(const GUID *id, PWSTR *error)                       \
	{                                                                                       \
		WCHAR b[40];                                                                    \
		return rpc("HcnDelete" #one, "sS", text(id, b), error);                         \
	}                                                                                       \
	EXPORT HRESULT WINAPI HcnClose##one(handle h) { return rpc("HcnClose" #one, "i", h); }

#define CREATE(one)                                                                              \
	EXPORT HRESULT WINAPI HcnCreate##one(const GUID *id, PCWSTR settings, handle *h, PWSTR *error) \
	{                                                                                       \
		WCHAR b[40];                                                                    \
		return rpc("HcnCreate" #one, "ssIS", text(id, b), settings, h, error);          \
	}

COMMON(Network, Networks)
COMMON(Endpoint, Endpoints)
COMMON(Namespace, Namespaces)
COMMON(LoadBalancer, LoadBalancers)
COMMON(SdnRoute, SdnRoutes)
CREATE(Network)
CREATE(Namespace)
CREATE(LoadBalancer)
CREATE(SdnRoute)

EXPORT HRESULT WINAPI HcnCreateEndpoint(handle network, const GUID *id, PCWSTR settings, handle *h, PWSTR *error)
{
	WCHAR b[40];
	return rpc("HcnCreateEndpoint", "issIS", network, text(id, b), settings, h, error);
}
