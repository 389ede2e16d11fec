"""Processes, one on each core, that train the same weights for a while and then each its own."""

import datetime

import torch
import torch.distributed as dist


def flattened(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


def like(flat, tensors):
    """The parts of `flat` in the shapes of `tensors`."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors)]


class Alone:
    """A crew of one."""

    rank, size = 0, 1

    def average(self, tensors, flag):
        return flag

    def divided(self, work, tensors):
        return [work(tensor) for tensor in tensors]

    def parted(self):
        return self


class Crew:
    """`size` processes with the same weights, of which this is number `rank`. One that is paused pauses all, no more."""

    def __init__(self, rank, size, meeting_place):
        self.rank, self.size = rank, size
        patience = datetime.timedelta(days=7)
        dist.init_process_group("gloo", f"file://{meeting_place.resolve()}", rank=rank, world_size=size, timeout=patience)

    def average(self, tensors, flag):
        """Makes every tensor its mean over the crew; the result is whether any of them raised the flag."""
        flat = flattened([*tensors, torch.tensor([float(flag)])])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, like(flat[:-1], tensors)):
            tensor.copy_(mean)
        return flat[-1].item() > 0

    def divided(self, work, tensors):
        """`work` of every tensor, of which each process does its share."""
        done = [work(t) if i % self.size == self.rank else torch.zeros_like(t) for i, t in enumerate(tensors)]
        flat = flattened(done)
        dist.all_reduce(flat)
        return like(flat, tensors)

    def parted(self):
        dist.destroy_process_group()
        return Alone()
