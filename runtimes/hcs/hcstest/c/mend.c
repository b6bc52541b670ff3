/* bcryptprimitives.dll for a Wine that has none. Every Go program loads it
 * first, for ProcessPrng, so this is also the place to give it the few other
 * calls that Wine 8 lacks: it changes what GetProcAddress finds in modules of
 * this process. TANDEM_WINE_MEND=off leaves them as they are. */
#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>
#include <windows.h>
#include <winternl.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG); /* RtlGenRandom */

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE to, SIZE_T n)
{
	return SystemFunction036(to, (ULONG)n);
}

/* --- ntdll: deletion with POSIX semantics becomes plain deletion --- */

typedef NTSTATUS(NTAPI *set_information)(HANDLE, IO_STATUS_BLOCK *, PVOID, ULONG, int);
static set_information real_set_information;

#define DISPOSITION 13
#define DISPOSITION_EX 64

static NTSTATUS NTAPI mended_set_information(HANDLE f, IO_STATUS_BLOCK *io, PVOID info, ULONG n, int class)
{
	BOOLEAN gone;
	if (class != DISPOSITION_EX || n < sizeof(ULONG))
		return real_set_information(f, io, info, n, class);
	gone = *(ULONG *)info & 1;
	return real_set_information(f, io, &gone, sizeof gone, DISPOSITION);
}

/* --- ws2_32: options of UDP sockets that change nothing here --- */

typedef int(WSAAPI *ioctl)(SOCKET, DWORD, void *, DWORD, void *, DWORD, DWORD *, WSAOVERLAPPED *, LPWSAOVERLAPPED_COMPLETION_ROUTINE);
static ioctl real_ioctl;

#define UDP_CONNRESET 0x9800000C
#define UDP_NETRESET 0x9800000F
#define EXTENSION 0xC8000006 /* SIO_GET_EXTENSION_FUNCTION_POINTER */

/* --- ws2_32: a pod's own address. Wine's processes share the machine's network;
 * what would bind to every address, or to the loopback's, of the pod's network
 * namespace is bound to the address of the pod's endpoint, and what connects to
 * the loopback connects to that. --- */

static ULONG pod; /* in network order; 0: this is no pod, or its address isn't the machine's */

typedef struct { /* room for both families */
	union {
		struct sockaddr any;
		struct sockaddr_in four;
		BYTE raw[28]; /* of a sockaddr_in6: family, port, flow, 16 bytes of address */
	} u;
} place;

static const BYTE mapped[12] = {[10] = 0xff, [11] = 0xff};

/* own is the address that stands for one; all says whether "any" counts. */
static const struct sockaddr *own(const struct sockaddr *a, int n, BOOL all, place *to)
{
	ULONG four;
	BYTE *six;
	if (!pod || n < (int)sizeof to->u.four || n > (int)sizeof to->u.raw)
		return a;
	memcpy(&to->u, a, n);
	if (a->sa_family == AF_INET) {
		four = to->u.four.sin_addr.s_addr;
		if ((four & 0xff) == 127 || (all && !four))
			to->u.four.sin_addr.s_addr = pod;
		return &to->u.any;
	}
	if (a->sa_family != AF_INET6 || n < (int)sizeof to->u.raw)
		return a;
	six = to->u.raw + 8;
	if (!memcmp(six, mapped, sizeof mapped)) {
		if (six[12] != 127 && !(all && !six[12]))
			return a;
	} else {
		static const BYTE none[16];
		if (!all || memcmp(six, none, sizeof none))
			return a;
		memcpy(six, mapped, sizeof mapped);
	}
	memcpy(six + 12, &pod, 4);
	return &to->u.any;
}

typedef int(WSAAPI *binder)(SOCKET, const struct sockaddr *, int);
static binder real_bind, real_connect;

static int WSAAPI mended_bind(SOCKET s, const struct sockaddr *a, int n)
{
	place to;
	return real_bind(s, own(a, n, TRUE, &to), n);
}

static int WSAAPI mended_connect(SOCKET s, const struct sockaddr *a, int n)
{
	place to;
	return real_connect(s, own(a, n, FALSE, &to), n);
}

typedef BOOL(WINAPI *connector)(SOCKET, const struct sockaddr *, int, void *, DWORD, DWORD *, OVERLAPPED *);
static connector real_connect_ex;

static BOOL WINAPI mended_connect_ex(SOCKET s, const struct sockaddr *a, int n, void *data, DWORD size, DWORD *sent, OVERLAPPED *o)
{
	place to;
	return real_connect_ex(s, own(a, n, FALSE, &to), n, data, size, sent, o);
}

static const GUID connect_ex_id = {0x25a207b9, 0xddf3, 0x4660, {0x8e, 0xe9, 0x76, 0xe5, 0x8c, 0x74, 0x06, 0x3e}};

/* --- kernel32: a pod's host name --- */

typedef BOOL(WINAPI *namer)(int, WCHAR *, DWORD *);
static namer real_computer_name;
static WCHAR host[64];

static BOOL WINAPI mended_computer_name(int kind, WCHAR *to, DWORD *n)
{
	DWORD length = (DWORD)wcslen(host);
	if (kind == ComputerNameDnsDomain || kind == ComputerNamePhysicalDnsDomain)
		return real_computer_name(kind, to, n);
	if (!to || *n <= length) {
		*n = length + 1;
		SetLastError(ERROR_MORE_DATA);
		return FALSE;
	}
	wcscpy(to, host);
	*n = length;
	return TRUE;
}

static int WSAAPI mended_ioctl(SOCKET s, DWORD code, void *in, DWORD nin, void *out, DWORD nout, DWORD *got, WSAOVERLAPPED *o, LPWSAOVERLAPPED_COMPLETION_ROUTINE done)
{
	if (code == UDP_CONNRESET || code == UDP_NETRESET) {
		if (got)
			*got = 0;
		return 0;
	}
	if (pod && code == EXTENSION && nin == sizeof(GUID) && !memcmp(in, &connect_ex_id, sizeof(GUID))) {
		int failed = real_ioctl(s, code, in, nin, out, nout, got, o, done);
		if (!failed && nout >= sizeof(connector)) {
			connector mine = mended_connect_ex;
			memcpy(&real_connect_ex, out, sizeof mine);
			memcpy(out, &mine, sizeof mine);
		}
		return failed;
	}
	return real_ioctl(s, code, in, nin, out, nout, got, o, done);
}

/* --- kernel32: writing a file from a backup stream; only its data is kept --- */

#define HEADER 20 /* of a WIN32_STREAM_ID without its name */

typedef struct {
	BYTE header[HEADER];
	DWORD have;      /* bytes of the header */
	DWORD name;      /* bytes of the name still to come */
	ULONG64 left;    /* bytes of the stream still to come */
} backup;

static BOOL WINAPI mended_backup_write(HANDLE f, BYTE *at, DWORD n, DWORD *written, BOOL abort, BOOL security, void **context)
{
	backup *b = *context;
	DWORD total = n;
	(void)security;
	if (abort) { /* the rest is NULL */
		free(b);
		*context = NULL;
		return TRUE;
	}
	if (!b) {
		b = calloc(1, sizeof *b);
		if (!b) {
			SetLastError(ERROR_NOT_ENOUGH_MEMORY);
			return FALSE;
		}
		*context = b;
	}
	while (n) {
		DWORD take, id;
		if (b->have < HEADER) {
			take = min(n, HEADER - b->have);
			memcpy(b->header + b->have, at, take);
			b->have += take;
			if (b->have == HEADER) {
				memcpy(&b->left, b->header + 8, 8);
				memcpy(&b->name, b->header + 16, 4);
			}
		} else if (b->name) {
			take = min(n, b->name);
			b->name -= take;
		} else {
			take = b->left < n ? (DWORD)b->left : n;
			memcpy(&id, b->header, 4);
			if (id == BACKUP_DATA) {
				DWORD done = 0;
				if (!WriteFile(f, at, take, &done, NULL)) {
					*written = 0;
					return FALSE;
				}
				take = done;
			}
			b->left -= take;
		}
		at += take;
		n -= take;
		if (b->have == HEADER && !b->name && !b->left)
			b->have = 0;
	}
	*written = total;
	return TRUE;
}

/* --- changing what GetProcAddress finds --- */

/* near_code returns a page at most 4 GiB above a module, as the entries of its
 * export table count from its base. */
static BYTE *near_code(BYTE *base)
{
	BYTE *at;
	for (at = base; at < base + 0x7fff0000u; at += 0x10000) {
		BYTE *page = VirtualAlloc(at, 0x1000, MEM_RESERVE | MEM_COMMIT, PAGE_EXECUTE_READWRITE);
		if (page)
			return page;
	}
	return NULL;
}

static void *redirect(const char *module, const char *name, void *to)
{
	BYTE *base = (BYTE *)LoadLibraryA(module), *code;
	void *real;
	IMAGE_NT_HEADERS *nt;
	IMAGE_EXPORT_DIRECTORY *dir;
	DWORD i, *names, *entries, old;
	WORD *ordinals;
	if (!base || !(real = (void *)GetProcAddress((HMODULE)base, name)))
		return NULL;
	nt = (IMAGE_NT_HEADERS *)(base + ((IMAGE_DOS_HEADER *)base)->e_lfanew);
	dir = (IMAGE_EXPORT_DIRECTORY *)(base + nt->OptionalHeader.DataDirectory[0].VirtualAddress);
	names = (DWORD *)(base + dir->AddressOfNames);
	entries = (DWORD *)(base + dir->AddressOfFunctions);
	ordinals = (WORD *)(base + dir->AddressOfNameOrdinals);
	for (i = 0; i < dir->NumberOfNames; i++)
		if (!strcmp((char *)base + names[i], name))
			break;
	if (i == dir->NumberOfNames || !(code = near_code(base)))
		return NULL;
	code[0] = 0x48; /* mov rax, to; jmp rax */
	code[1] = 0xb8;
	memcpy(code + 2, &to, 8);
	code[10] = 0xff;
	code[11] = 0xe0;
	if (!VirtualProtect(&entries[ordinals[i]], sizeof *entries, PAGE_READWRITE, &old))
		return NULL;
	entries[ordinals[i]] = (DWORD)(code - base);
	VirtualProtect(&entries[ordinals[i]], sizeof *entries, old, &old);
	return real;
}

/* say_ready tells the broker that this process has begun to run: asked to end
 * any sooner, Wine loses the question. */
static void say_ready(void)
{
	WCHAR name[40];
	HANDLE event;
	_snwprintf(name, 40, L"hcstest-ready-%u", (unsigned)GetCurrentProcessId());
	event = OpenEventW(EVENT_MODIFY_STATE, FALSE, name);
	if (event) {
		SetEvent(event);
		CloseHandle(event);
	}
}

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
	char off[8], address[16];
	(void)reserved;
	if (reason != DLL_PROCESS_ATTACH)
		return TRUE;
	DisableThreadLibraryCalls(self);
	say_ready();
	if (GetEnvironmentVariableA("TANDEM_WINE_MEND", off, sizeof off) && !strcmp(off, "off"))
		return TRUE;
	real_set_information = (set_information)redirect("ntdll.dll", "NtSetInformationFile", mended_set_information);
	real_ioctl = (ioctl)redirect("ws2_32.dll", "WSAIoctl", mended_ioctl);
	redirect("kernel32.dll", "BackupWrite", mended_backup_write);
	if (GetEnvironmentVariableA("HCSTEST_ADDRESS", address, sizeof address) && (pod = inet_addr(address)) == INADDR_NONE)
		pod = 0;
	if (pod) {
		real_bind = (binder)redirect("ws2_32.dll", "bind", mended_bind);
		real_connect = (binder)redirect("ws2_32.dll", "connect", mended_connect);
	}
	if (GetEnvironmentVariableW(L"HCSTEST_HOSTNAME", host, 64))
		real_computer_name = (namer)redirect("kernel32.dll", "GetComputerNameExW", mended_computer_name);
	return TRUE;
}
