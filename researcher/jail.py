"""The first thing that a child process runs: shuts itself in, then runs a script. Standard library alone, one thread.

  python -I -B jail.py SPEC      SPEC: JSON, the fields of sandbox.Cell

Everything is done before any other library is imported, since Landlock and seccomp bind the calling thread and those
that it starts. What has been shut is told in the first line of the pipe `log`.
"""
import ctypes
import json
import os
import platform
import resource
import runpy
import signal
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)

# Landlock (linux/landlock.h): rights on files by bit.
READ, EXECUTE, LIST = (1 << 2) | (1 << 3), 1 << 0, 1 << 3
WRITE = (1 << 1) | (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8)  # write, remove, make folders and plain files
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # version -> how many there are; 16 from 5 on
TRUNCATE, OF_FILES = 1 << 14, (1 << 0) | (1 << 1) | (1 << 2) | (1 << 14) | (1 << 15)
CREATE, ADD, RESTRICT, VERSION = 444, 445, 446, 1

OWN = ['/proc/self/maps']  # where this process has its libraries: scikit-learn looks there how many threads they have

# Namespaces (linux/sched.h) and mounts.
USER, MOUNTS, NETWORK, IPC = 0x10000000, 0x20000, 0x40000000, 0x08000000
PRIVATE, NOTHING = (1 << 18) | (1 << 14), (1 << 1) | (1 << 2) | (1 << 3) | 1  # nosuid, nodev, noexec, read-only

# Calls of x86-64 that no training needs: processes, networks, other processes' memory, mounts, modes and owners, keys,
# and ways to files that go around paths.
REFUSED = {
    'socket': 41, 'connect': 42, 'accept': 43, 'bind': 49, 'listen': 50, 'accept4': 288,
    'fork': 57, 'vfork': 58, 'execve': 59, 'execveat': 322, 'kill': 62, 'tkill': 200, 'setpgid': 109, 'setsid': 112,
    'ptrace': 101, 'process_vm_readv': 310, 'process_vm_writev': 311, 'pidfd_open': 434, 'pidfd_getfd': 438,
    'pidfd_send_signal': 424, 'kcmp': 312, 'process_madvise': 440, 'perf_event_open': 298, 'bpf': 321,
    'userfaultfd': 323, 'io_uring_setup': 425, 'io_uring_enter': 426, 'io_uring_register': 427,
    'shmget': 29, 'shmat': 30, 'msgget': 68, 'semget': 64, 'mq_open': 240, 'mknod': 133, 'mknodat': 259,
    'mount': 165, 'umount2': 166, 'pivot_root': 155, 'chroot': 161, 'unshare': 272, 'setns': 308, 'open_tree': 428,
    'move_mount': 429, 'fsopen': 430, 'fsconfig': 431, 'fsmount': 432, 'fspick': 433, 'mount_setattr': 442,
    'name_to_handle_at': 303, 'open_by_handle_at': 304, 'chmod': 90, 'fchmod': 91, 'fchmodat': 268, 'fchmodat2': 452,
    'chown': 92, 'fchown': 93, 'lchown': 94, 'fchownat': 260, 'utime': 132, 'utimes': 235, 'utimensat': 280,
    'futimesat': 261, 'setxattr': 188, 'lsetxattr': 189, 'fsetxattr': 190, 'removexattr': 197, 'lremovexattr': 198,
    'fremovexattr': 199, 'add_key': 248, 'request_key': 249, 'keyctl': 250, 'init_module': 175, 'finit_module': 313,
    'delete_module': 176, 'kexec_load': 246, 'reboot': 169, 'syslog': 103, 'sethostname': 170, 'acct': 163,
    'swapon': 167, 'swapoff': 168, 'quotactl': 179, 'setpriority': 141, 'sched_setscheduler': 144,
}
CLONE, CLONE3, LIMITS, THREAD = 56, 435, 302, 0x10000
X86_64 = 0xC000003E
LOAD, EQUALS, ABOVE, ANY_BIT, ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF: load word, jumps, return
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38


def landlock_version() -> int:
    """The version of Landlock that this kernel has; 0: none."""
    return max(LIBC.syscall(CREATE, None, 0, VERSION), 0)


def has_filters() -> bool:
    """Whether there are seccomp filters, and this machine is one whose calls are numbered above."""
    return platform.machine() == 'x86_64' and LIBC.prctl(21, 0, 0, 0, 0) == 0  # PR_GET_SECCOMP


def limits(spec: dict) -> None:
    """Memory, seconds of CPU, bytes of a file, no core dump."""
    cores = os.cpu_count() or 1
    for which, value in ((resource.RLIMIT_AS, spec['memory'] + spec['mapped']), (resource.RLIMIT_CORE, 0),
                         (resource.RLIMIT_CPU, int(spec['seconds'] * cores) + 1),
                         (resource.RLIMIT_FSIZE, spec['file_bytes'])):
        resource.setrlimit(which, (value, value))


def namespaces(hidden: list[str]) -> list[str]:
    """A network without devices, and mounts in which `hidden` folders are empty, as far as the system lets us; what
    could be done."""
    if LIBC.unshare(USER | MOUNTS | NETWORK | IPC):
        return []
    done, user, group = ['no network devices'], os.geteuid(), os.getegid()
    try:
        for name, text in (('setgroups', 'deny'), ('uid_map', f'{user} {user} 1'), ('gid_map', f'{group} {group} 1')):
            with open(f'/proc/self/{name}', 'w') as file:
                file.write(text)
    except OSError:
        pass  # nobody's rights: less than we had
    if LIBC.mount(b'none', b'/', None, PRIVATE, None):
        return done
    if all(LIBC.mount(b'tmpfs', path.encode(), b'tmpfs', NOTHING, b'size=4k') == 0 for path in hidden):
        done.append('truth absent')
    return done


def landlock(read: list[str], listed: list[str], write: list[str]) -> str:
    """Lets this thread, and all that it starts, read and run only below `read`, list also what is below `listed`, and
    write only below `write`."""
    version = landlock_version()
    rights = (1 << RIGHTS.get(version, 16)) - 1
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack('<QQQ', rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)[:size]
    rules = LIBC.syscall(CREATE, attributes, size, 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), 'landlock_create_ruleset')
    for paths, allowed in ((read, READ | EXECUTE), (listed, LIST), (OWN, READ), (write, READ | WRITE | TRUNCATE)):
        for path in filter(os.path.exists, paths):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            these = allowed & rights & (-1 if os.path.isdir(path) else OF_FILES)
            if LIBC.syscall(ADD, rules, 1, struct.pack('<Qi', these, place), 0):
                raise OSError(ctypes.get_errno(), f'landlock_add_rule {path}')
            os.close(place)
    if LIBC.syscall(RESTRICT, rules, 0):
        raise OSError(ctypes.get_errno(), 'landlock_restrict_self')
    os.close(rules)
    return f'landlock {version}'


def program() -> list[tuple[int, int, int, int]]:
    """A BPF program that answers the refused calls with EPERM: instructions (code, jump if true, if false, constant).

    Threads may be started, processes not; limits may be read or set of this process alone.
    """
    out = [(LOAD, 0, 0, 4), (EQUALS, 1, 0, X86_64), (ANSWER, 0, 0, EPERM),
           (LOAD, 0, 0, 0), (ABOVE, 0, 1, 0x40000000), (ANSWER, 0, 0, EPERM),
           (EQUALS, 0, 3, CLONE), (LOAD, 0, 0, 16), (ANY_BIT, 1, 0, THREAD), (ANSWER, 0, 0, EPERM), (LOAD, 0, 0, 0),
           (EQUALS, 0, 3, LIMITS), (LOAD, 0, 0, 16), (EQUALS, 1, 0, 0), (ANSWER, 0, 0, EPERM), (LOAD, 0, 0, 0),
           (EQUALS, 0, 1, CLONE3), (ANSWER, 0, 0, ENOSYS)]
    for number in sorted(REFUSED.values()):
        out += [(EQUALS, 0, 1, number), (ANSWER, 0, 0, EPERM)]
    return [*out, (ANSWER, 0, 0, ALLOW)]


def seccomp() -> str:
    """Refuses the calls of `program` to this thread and all that it starts."""
    code = b''.join(struct.pack('<HBBI', *line) for line in program())
    held = ctypes.create_string_buffer(code, len(code))
    pointer = struct.pack('<HxxxxxxQ', len(code) // 8, ctypes.addressof(held))
    if LIBC.prctl(22, 2, ctypes.c_char_p(pointer), 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), 'seccomp')
    return 'seccomp'


def confine(spec: dict) -> list[str]:
    """Shuts this process in; what has been shut. Raises OSError."""
    done = namespaces(spec['hidden'])
    if LIBC.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), 'no_new_privs')
    return [*done, landlock(spec['read'], spec['list'], spec['write']), seccomp()]


def main() -> None:
    """Shuts this process in as the first argument says and runs its script."""
    spec = json.loads(sys.argv[1])
    os.chdir(spec['cwd'])
    limits(spec)
    done = confine(spec) if spec['confined'] else []
    LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: a judge that is killed leaves nobody behind
    os.write(spec['log'], (json.dumps({'guards': done}) + '\n').encode())
    sys.argv = [spec['script'], *spec['arguments'], str(spec['log'])]
    sys.path[:0] = spec['path']
    runpy.run_path(spec['script'], run_name='__main__')


if __name__ == '__main__':
    main()
