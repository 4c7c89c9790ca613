"""A disk that lost its power: what was synced is there, what was not is there in part.

Replays the events of trace.py and knows for each file what is on the disk and what is on its way. An image is what is on
the disk and a random part of the rest: each write whole, not at all, or torn at sectors of 512 bytes; a truncation done
or not; files that were made, removed or renamed only perhaps so until their directory was synced. Writes of one file may
be kept in any combination, since nothing orders them before the sync.
"""

import os

SECTOR = 512


def change(file, event):
    if event[0] == "truncate":
        del file[event[2]:]
        file.extend(bytes(event[2] - len(file)))
    else:
        offset, content = event[2], event[3]
        if len(file) < offset:
            file.extend(bytes(offset - len(file)))
        file[offset:offset + len(content)] = content


class Disk:
    """`files` are on the disk before the first event."""

    def __init__(self, files=None, inodes=None):
        self.durable, self.pending, self.done = {}, {}, {}
        # Names on the disk, and changes of names that no sync of their directory has covered.
        self.names, self.moves = {}, []
        for path, content in (files or {}).items():
            self.names[path] = inodes[path]
            self.durable[inodes[path]] = bytearray(content)

    def apply(self, event):
        kind = event[0]
        if kind in ("write", "truncate"):
            self.pending.setdefault(event[1], []).append(event)
        elif kind in ("create", "mkdir", "unlink", "rename"):
            self.moves.append(event)
        elif kind == "sync":
            # Only what was written when the sync began.
            inode, upto = event[1], event[2]
            writes, done = self.pending.get(inode, []), self.done.get(inode, 0)
            covered, rest = writes[:upto - done], writes[upto - done:]
            file = self.durable.setdefault(inode, bytearray())
            for write in covered:
                change(file, write)
            self.done[inode] = done + len(covered)
            self.pending[inode] = rest
        elif kind == "sync-dir":
            here = [m for m in self.moves if self.within(m, event[1])]
            self.moves = [m for m in self.moves if not self.within(m, event[1])]
            for move in here:
                self.move(self.names, move)

    @staticmethod
    def within(move, directory):
        return any((os.path.dirname(p) or ".") == directory for p in move[1:] if isinstance(p, str))

    @staticmethod
    def move(names, move):
        kind = move[0]
        if kind == "create":
            names[move[1]] = move[2]
        elif kind == "unlink":
            names.pop(move[1], None)
        elif kind == "rename" and move[1] in names:
            names[move[2]] = names.pop(move[1])

    def image(self, rng):
        """One thing that may be found after the power went: contents by path."""
        names = dict(self.names)
        if rng.random() < 0.5:
            kept = self.moves[:rng.randint(0, len(self.moves))]
        else:
            kept = [m for m in self.moves if rng.random() < 0.5]
        for move in kept:
            self.move(names, move)
        return {path: self.content(inode, rng) for path, inode in names.items()}

    def content(self, inode, rng):
        durable, writes = self.durable.get(inode, b""), self.pending.get(inode)
        if not writes:
            return durable
        file, how = bytearray(durable), rng.random()
        if how < 0.1:
            return file
        if how < 0.3:
            # As they were given, up to somewhere, and the last one torn.
            writes, share = writes[:rng.randint(1, len(writes))], 1.0
        else:
            share = rng.choice((0.1, 0.5, 0.9, 1.0))
        for n, write in enumerate(writes):
            if rng.random() >= share:
                continue
            torn = rng.random() < 0.3 or share == 1.0 and n == len(writes) - 1
            if torn and write[0] == "write":
                self.tear(file, write, rng)
            else:
                change(file, write)
        return file

    @staticmethod
    def tear(file, write, rng):
        offset, content = write[2], write[3]
        at = 0
        while at < len(content):
            # Sectors are those of the disk, not those of the write.
            end = min(len(content), at + SECTOR - (offset + at) % SECTOR)
            if rng.random() < 0.5:
                change(file, ("write", 0, offset + at, content[at:end]))
            at = end
