#include "rpc.h"
#include <combaseapi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The broker writes its port here, again whenever it starts. */
#define PORT_FILE L"C:\\hcstest\\port"

typedef struct {
	BYTE *at;
	DWORD len, room;
} buffer;

static void put(buffer *b, const void *data, DWORD n)
{
	if (b->len + n > b->room) {
		b->room = (b->len + n) * 2;
		b->at = realloc(b->at, b->room);
	}
	memcpy(b->at + b->len, data, n);
	b->len += n;
}

static void put32(buffer *b, DWORD v) { put(b, &v, 4); }

static void put_text(buffer *b, PCWSTR s)
{
	if (!s) {
		put32(b, ~0u);
		return;
	}
	put32(b, (DWORD)wcslen(s));
	put(b, s, (DWORD)wcslen(s) * 2);
}

static int broker_port(void)
{
	char text[16] = {0};
	DWORD n = 0;
	HANDLE f = CreateFileW(PORT_FILE, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, 0, NULL);
	if (f == INVALID_HANDLE_VALUE)
		return 0;
	ReadFile(f, text, sizeof text - 1, &n, NULL);
	CloseHandle(f);
	return atoi(text);
}

static SOCKET dial(void)
{
	WSADATA data;
	struct sockaddr_in to = {0};
	int on = 1;
	SOCKET s;
	if (WSAStartup(MAKEWORD(2, 2), &data))
		return INVALID_SOCKET;
	to.sin_family = AF_INET;
	to.sin_port = htons((u_short)broker_port());
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (!to.sin_port)
		return INVALID_SOCKET;
	s = socket(AF_INET, SOCK_STREAM, 0);
	if (s == INVALID_SOCKET)
		return s;
	SetHandleInformation((HANDLE)s, HANDLE_FLAG_INHERIT, 0);
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, (char *)&on, sizeof on);
	if (connect(s, (struct sockaddr *)&to, sizeof to)) {
		closesocket(s);
		return INVALID_SOCKET;
	}
	return s;
}

static int send_all(SOCKET s, const BYTE *at, DWORD n)
{
	while (n) {
		int sent = send(s, (const char *)at, (int)n, 0);
		if (sent <= 0)
			return 0;
		at += sent;
		n -= (DWORD)sent;
	}
	return 1;
}

static int receive(SOCKET s, void *to, DWORD n)
{
	BYTE *at = to;
	while (n) {
		int got = recv(s, (char *)at, (int)n, 0);
		if (got <= 0)
			return 0;
		at += got;
		n -= (DWORD)got;
	}
	return 1;
}

/* send_request returns the connection; what shape calls results stays in args. */
static SOCKET send_request(const char *name, const char *shape, va_list args)
{
	buffer b = {0};
	DWORD count = 0;
	const char *c;
	SOCKET s = dial();
	if (s == INVALID_SOCKET)
		return s;
	for (c = shape; *c == 'i' || *c == 's'; c++)
		count++;
	put32(&b, 0);
	put32(&b, GetCurrentProcessId());
	put32(&b, (DWORD)strlen(name));
	put(&b, name, (DWORD)strlen(name));
	put32(&b, count);
	for (c = shape; *c == 'i' || *c == 's'; c++) {
		put(&b, c, 1);
		if (*c == 'i') {
			ULONG64 v = va_arg(args, ULONG64);
			put(&b, &v, 8);
		} else {
			put_text(&b, va_arg(args, PCWSTR));
		}
	}
	*(DWORD *)b.at = b.len - 4;
	if (!send_all(s, b.at, b.len)) {
		closesocket(s);
		s = INVALID_SOCKET;
	}
	free(b.at);
	return s;
}

static PWSTR take_text(const BYTE **at, const BYTE *end)
{
	DWORD n;
	PWSTR out;
	if (end - *at < 4)
		return NULL;
	memcpy(&n, *at, 4);
	*at += 4;
	if (n == ~0u || (ULONG64)(end - *at) < (ULONG64)n * 2)
		return NULL;
	out = CoTaskMemAlloc(((SIZE_T)n + 1) * 2);
	if (!out)
		return NULL;
	memcpy(out, *at, (SIZE_T)n * 2);
	out[n] = 0;
	*at += (SIZE_T)n * 2;
	return out;
}

static HRESULT take_answer(SOCKET s, const char *shape, va_list args)
{
	DWORD len;
	BYTE *raw;
	const BYTE *at, *end;
	HRESULT hr = SERVICE_NOT_AVAILABLE;
	if (!receive(s, &len, 4) || len < 4 || len > (64 << 20))
		return hr;
	raw = malloc(len);
	if (raw && receive(s, raw, len)) {
		memcpy(&hr, raw, 4);
		at = raw + 4;
		end = raw + len;
		for (; *shape; shape++) {
			if (*shape == 'i')
				(void)va_arg(args, ULONG64);
			else if (*shape == 's')
				(void)va_arg(args, PCWSTR);
			else if (*shape == 'I') {
				ULONG64 *to = va_arg(args, ULONG64 *), v = 0;
				if (end - at >= 8) {
					memcpy(&v, at, 8);
					at += 8;
				}
				if (to)
					*to = v;
			} else {
				PWSTR *to = va_arg(args, PWSTR *), text = take_text(&at, end);
				if (to)
					*to = text;
				else
					CoTaskMemFree(text);
			}
		}
	}
	free(raw);
	return hr;
}

HRESULT rpc(const char *name, const char *shape, ...)
{
	va_list args, again;
	HRESULT hr = SERVICE_NOT_AVAILABLE;
	SOCKET s;
	va_start(args, shape);
	va_copy(again, args);
	s = send_request(name, shape, args);
	if (s != INVALID_SOCKET) {
		hr = take_answer(s, shape, again);
		closesocket(s);
	}
	va_end(again);
	va_end(args);
	return hr;
}

SOCKET rpc_open(const char *name, const char *shape, ...)
{
	va_list args;
	SOCKET s;
	va_start(args, shape);
	s = send_request(name, shape, args);
	va_end(args);
	return s;
}

int rpc_event(SOCKET s, ULONG *type, PWSTR *text)
{
	DWORD len;
	BYTE *raw;
	const BYTE *at;
	if (!receive(s, &len, 4) || len < 8 || len > (64 << 20))
		return 0;
	raw = malloc(len);
	if (!raw || !receive(s, raw, len)) {
		free(raw);
		return 0;
	}
	memcpy(type, raw, 4);
	at = raw + 4;
	*text = take_text(&at, raw + len);
	free(raw);
	return 1;
}
