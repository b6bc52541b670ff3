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

static int WSAAPI mended_ioctl(SOCKET s, DWORD code, void *in, DWORD nin, void *out, DWORD nout, DWORD *got, WSAOVERLAPPED *o, LPWSAOVERLAPPED_COMPLETION_ROUTINE done)
{
	if (code == UDP_CONNRESET || code == UDP_NETRESET) {
		if (got)
			*got = 0;
		return 0;
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
	char off[8];
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
	return TRUE;
}
