# System calls by number: the C library has no names for most of them. Prints what each was answered.
import ctypes, errno, platform

libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"


def call(name, number, *arguments):
    ctypes.set_errno(0)
    answer = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    print(name, answer if answer >= 0 else errno.errorcode[ctypes.get_errno()])


socket, unshare, clone = (41, 272, 56) if x86 else (198, 97, 220)
call("keyctl", 250 if x86 else 219, 0, -3, 1)
call("bpf", 321 if x86 else 280, 0, 0, 0)
call("perf", 298 if x86 else 241, 0, 0, -1, -1, 0)
call("userfaultfd", 323 if x86 else 282, 1)
call("io_uring", 425, 1, 0)
call("handle", 304 if x86 else 265, -1, 0, 0)
call("fsopen", 430, 0, 0)
call("open_tree", 428, -100, 0, 1)
call("newuser", clone, 0x10000000 | 17, 0, 0, 0, 0)
call("newtime", unshare, 0x80)
call("vsock", socket, 40, 1, 0)
call("alg", socket, 38, 5, 0)
call("packet", socket, 17, 3, 0)
call("tiocsti", 16 if x86 else 29, 0, 0x5412, 0)
call("readexec", 135 if x86 else 92, 0x0400000)
call("clone3", 435, 0, 0)
call("x32", 0x40000000 + 39 if x86 else 435, 0)
call("inet", socket, 2, 1, 0)
call("unshare", unshare, 0x200)
call("norandom", 135 if x86 else 92, 0x0040000)
