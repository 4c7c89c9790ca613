"""From what strace saw of otrelay to what happened to its files, in order.

The events of a trace, as tuples:

    ("create", path, inode)  ("mkdir", path)  ("unlink", path)  ("rename", old, new)
    ("write", inode, offset, data)  ("truncate", inode, size)
    ("sync", inode, writes)  ("sync-dir", path)         what had been written when the sync was asked for is on the disk
    ("post", key, body)                                  a record is on its way to ServiceNow
    ("status", counts)                                   an answer of the control socket leaves: this was promised

Paths are relative to the state directory; "." is the directory itself. A change counts from the end of its call and an
answer from its beginning, so no order is taken for granted that the program did not wait for. What is not on the disk
by design (lock, socket, index of the WAL) is left out; a call that this file does not know, on a file of the state
directory, is an error and not a gap in the model.
"""

import json
import os
import re

# Files whose contents mean nothing after a power cut: a lock of a dead process, a socket, what SQLite makes anew.
VOLATILE = re.compile(r"(^|/)(lock|[^/]*-shm|[^/]*\.sock)$")

CALLS = ("openat,open,creat,close,dup,dup2,dup3,fcntl,lseek,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,"
         "fsync,fdatasync,sync_file_range,ftruncate,ftruncate64,truncate,fallocate,copy_file_range,sendfile,splice,"
         "unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat,rmdir")

OPTIONS = ["-f", "-qq", "-xx", "-s", "4000000", "-e", "signal=none",
           "-e", "trace=" + ",".join("?" + c for c in CALLS.split(","))]

HEX = re.compile(r"\"((?:\\x[0-9a-f]{2})*)\"")
KEY = re.compile(rb'"correlation_id":"(otrelay-[0-9a-f]{32})"')


class Unknown(Exception):
    """The trace has something that the model does not cover."""


def plain(text):
    return bytes.fromhex(text.replace("\\x", ""))


def name(text):
    found = HEX.search(text)
    return plain(found[1]).decode(errors="surrogateescape") if found else ""


def data(text):
    return b"".join(plain(m[1]) for m in HEX.finditer(text))


class Open:
    """An open file: several descriptors may share it."""

    def __init__(self, path, inode, append):
        self.path, self.inode, self.append, self.at = path, inode, append, 0


class Files:
    """What the program sees of the state directory; lives over several traces of several processes."""

    def __init__(self, directory):
        self.root = os.path.realpath(directory)
        self.names, self.contents, self.writes = {}, {}, {}
        self.events, self.new = [], 0
        self.descriptors = {}

    def take(self, files):
        """Files that are there, and on the disk, before the first trace. Gives their inodes."""
        for path, content in files.items():
            self.make(path)
            self.contents[self.names[path]] = bytearray(content)
        return {path: self.names[path] for path in files}

    def make(self, path):
        self.new += 1
        self.names[path] = self.new
        self.contents[self.new], self.writes[self.new] = bytearray(), 0
        return self.new

    def inside(self, path):
        """The path within the state directory, or nothing."""
        path = os.path.normpath(path)
        if path == self.root:
            return "."
        return path[len(self.root) + 1:] if path.startswith(self.root + "/") else None

    # Changes

    def put(self, inode, offset, content):
        file = self.contents[inode]
        if len(file) < offset:
            file.extend(bytes(offset - len(file)))
        file[offset:offset + len(content)] = content
        self.writes[inode] += 1
        self.events.append(("write", inode, offset, content))

    def cut(self, inode, size):
        file = self.contents[inode]
        del file[size:]
        file.extend(bytes(size - len(file)))
        self.writes[inode] += 1
        self.events.append(("truncate", inode, size))

    # Reading

    def read(self, trace):
        """Takes in the trace of one process and its threads."""
        self.descriptors = {}
        begun = {}
        with open(trace, encoding="ascii", errors="replace") as lines:
            for line in lines:
                thread, _, text = line.rstrip("\n").partition(" ")
                text = text.lstrip()
                if text.endswith("<unfinished ...>"):
                    head = text[:-len("<unfinished ...>")]
                    begun[thread] = (head, self.begins(head))
                    continue
                resumed = re.match(r"<\.\.\. \w+ resumed>", text)
                if resumed:
                    head, mark = begun.pop(thread, ("", None))
                    text = head + text[resumed.end():]
                else:
                    mark = self.begins(text)
                self.ends(text, mark)

    def begins(self, text):
        """What counts from the beginning of a call: answers that leave, and what a sync has to cover."""
        call, _, rest = text.partition("(")
        file = self.file(rest)
        if call in ("fsync", "fdatasync") and file and file.inode:
            return self.writes[file.inode]
        if call in ("write", "writev", "sendto", "sendmsg") and not file:
            self.leaves(rest)
        return None

    def leaves(self, rest):
        # Before it is decoded: most of it is nothing to us.
        if rest.count("\\x") < 40:
            return
        sent = data(rest)
        if sent.startswith(b"POST /api/now/table/"):
            key = KEY.search(sent)
            if not key:
                raise Unknown(f"a POST whose key is not in the same call: {sent[:200]!r}")
            self.events.append(("post", key[1].decode(), sent[sent.find(b"\r\n\r\n") + 4:]))
        elif sent.startswith(b'{"ok":') and b'"sources":[{' in sent:
            try:
                told = json.loads(sent)["ok"]
            except ValueError:
                return
            told = told.get("overview", told)
            counts = {"new": sum(s["new"] for s in told["sources"]),
                      "delivered": sum(d["counts"].get("delivered", 0) for d in told["destinations"])}
            self.events.append(("status", counts))

    def file(self, rest):
        number = re.match(r"(\d+)", rest)
        return self.descriptors.get(number[1]) if number else None

    def ends(self, text, mark):
        """A call that is done. Failed ones changed nothing."""
        done = re.match(r"(\w+)\((.*)\)\s+= (-?\d+)", text)
        if not done or done[3].startswith("-"):
            return
        call, rest, result = done[1], done[2], done[3]
        handler = getattr(self, "on_" + call, None)
        if handler:
            handler(rest, result, mark)
        elif self.file(rest) and self.file(rest).inode:
            raise Unknown(f"{call} on {self.file(rest).path}")
        elif call in ("link", "linkat", "symlink", "symlinkat", "rmdir", "truncate") and any(
                self.inside(plain(m[1]).decode(errors="replace")) for m in HEX.finditer(rest)):
            raise Unknown(f"{call} in the state directory")

    def on_openat(self, rest, result, _):
        self.descriptors.pop(result, None)
        path = self.inside(name(rest))
        if path is None or VOLATILE.search(path):
            return
        flags = rest.rpartition('"')[2]
        inode = self.names.get(path)
        if path == "." or "O_DIRECTORY" in flags or os.path.isdir(os.path.join(self.root, path)) and inode is None:
            self.descriptors[result] = Open(path, None, False)
            return
        if inode is None:
            if "O_CREAT" not in flags:
                raise Unknown(f"{path} is opened and was never made")
            inode = self.make(path)
            self.events.append(("create", path, inode))
        elif "O_TRUNC" in flags:
            self.cut(inode, 0)
        self.descriptors[result] = Open(path, inode, "O_APPEND" in flags)

    on_open = on_openat

    def on_close(self, rest, _result, _mark):
        number = re.match(r"(\d+)", rest)
        if number:
            self.descriptors.pop(number[1], None)

    def on_dup(self, rest, result, _):
        if self.file(rest):
            self.descriptors[result] = self.file(rest)

    on_dup2 = on_dup3 = on_dup

    def on_fcntl(self, rest, result, _):
        if "F_DUPFD" in rest:
            self.on_dup(rest, result, _)

    def on_lseek(self, rest, result, _):
        if self.file(rest):
            self.file(rest).at = int(result)

    def on_write(self, rest, result, _):
        file = self.file(rest)
        if file and file.inode:
            at = len(self.contents[file.inode]) if file.append else file.at
            self.put(file.inode, at, data(rest)[:int(result)])
            file.at = at + int(result)

    on_writev = on_write

    def on_pwrite64(self, rest, result, _):
        file = self.file(rest)
        if file and file.inode:
            self.put(file.inode, int(rest.rpartition(",")[2]), data(rest)[:int(result)])

    def on_sendto(self, *_):
        pass

    on_sendmsg = on_sendto

    def on_ftruncate(self, rest, _result, _mark):
        file = self.file(rest)
        if file and file.inode:
            self.cut(file.inode, int(rest.rpartition(",")[2]))

    def on_fdatasync(self, rest, _result, mark):
        file = self.file(rest)
        if file:
            self.events.append(("sync-dir", file.path) if file.inode is None else ("sync", file.inode, mark))

    on_fsync = on_fdatasync

    def on_copy_file_range(self, rest, result, _):
        numbers = re.match(r"(\d+), (NULL|\[\d+\]), (\d+), (NULL|\[\d+\])", rest)
        source, target = self.descriptors.get(numbers[1]), self.descriptors.get(numbers[3])
        if not target or not target.inode:
            return
        if not source or numbers[2] != "NULL" or numbers[4] != "NULL":
            raise Unknown(f"copy_file_range from elsewhere into {target.path}")
        content = bytes(self.contents[source.inode][source.at:source.at + int(result)])
        self.put(target.inode, target.at, content)
        source.at += int(result)
        target.at += int(result)

    def on_mkdir(self, rest, _result, _mark):
        path = self.inside(name(rest))
        if path:
            self.events.append(("mkdir", path))

    on_mkdirat = on_mkdir

    def on_unlink(self, rest, _result, _mark):
        path = self.inside(name(rest))
        if path and not VOLATILE.search(path):
            del self.names[path]
            self.events.append(("unlink", path))

    on_unlinkat = on_unlink

    def on_rename(self, rest, _result, _mark):
        old, new = (self.inside(plain(m[1]).decode(errors="surrogateescape")) for m in HEX.finditer(rest))
        if old is None and new is None or VOLATILE.search(old or "") and VOLATILE.search(new or ""):
            return
        if old is None or new is None or old not in self.names:
            raise Unknown(f"rename of {old} to {new}")
        self.names[new] = self.names.pop(old)
        self.events.append(("rename", old, new))

    on_renameat = on_renameat2 = on_rename
