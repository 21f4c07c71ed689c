"""An audit hook that writes down what an idea tries and may not: it stops nothing, the kernel does.

It sees what goes through Python's own functions. Calls that go around them (through ctypes) show only as the use of
ctypes; they are refused all the same.
"""
import os
import sys
import types

NOTED = ('socket.', 'subprocess.', 'os.system', 'os.exec', 'os.fork', 'os.posix_spawn', 'os.spawn', 'os.kill',
         'ctypes.dl', 'gc.get_', 'sys.addaudithook', 'pty.', 'ftplib.', 'http.', 'urllib.', 'os.chmod', 'os.chown',
         'os.link', 'os.symlink')
PATHS = ('open', 'os.listdir', 'os.scandir', 'os.remove', 'os.rename', 'os.mkdir', 'os.rmdir', 'os.truncate')
# What the pipeline itself does when it trains (leases, event loops, malloc): counts only below a frame of the idea.
USUAL = ('socket.gethostname', 'socket.__new__', 'ctypes.dl')
USUAL_PATHS = ('/proc/sys/kernel/random/boot_id', f'/proc/{os.getpid()}')
MOST = 100


def below(path: str, places: list[str]) -> bool:
    """Whether a path is one of places, or in one."""
    return any(path == place or path.startswith(place.rstrip('/') + '/') for place in places)


def note(number: int, read: list[str], write: list[str], idea: str, sealed: list[str]) -> None:
    """From now on, tells pipe `number` in a line what is tried beyond `read` and `write`, or in `sealed`. idea: the
    name of its file."""
    left = [MOST]
    real, tell, join, frames = os.path.realpath, os.write, os.path.join, sys._getframe

    def hook(event, arguments):
        if left[0] <= 0 or not event.startswith((*NOTED, *PATHS)):
            return
        text = seen(event, arguments)
        if text:
            left[0] -= 1
            tell(number, (text[:180].replace('\n', ' ') + '\n').encode(errors='replace'))

    def seen(event, arguments):
        if event not in PATHS:
            if event.startswith(USUAL) and not by_idea():
                return ''
            return f'{event} {arguments[:1]!r}'
        path = arguments[0] if arguments else None
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str):
            return ''
        changes = event not in ('open', 'os.listdir', 'os.scandir') or writes(*arguments[1:3])
        left[0], kept = 0, left[0]  # what realpath opens is not looked at
        whole = real(join(os.getcwd(), path))
        left[0] = kept
        if below(whole, write) or (not changes and below(whole, read) and not below(whole, sealed)):
            return ''
        if below(whole, list(USUAL_PATHS)) and not by_idea():
            return ''
        return f'{event} {"to write " if changes else ""}{path}'

    def by_idea():
        frame: types.FrameType | None = frames(1)
        while frame is not None:
            if frame.f_code.co_filename.endswith(idea):
                return True
            frame = frame.f_back
        return False
    sys.addaudithook(hook)


def writes(mode=None, flags=None) -> bool:
    """Whether a file is opened to be changed."""
    if isinstance(mode, str):
        return any(letter in mode for letter in 'wax+')
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
