"""Makes the files of this folder with PyTorch, the program whose format `checkpoint::torch` reads.

    python make_oracle.py

Element i of every float tensor is i / 8 - 2, exact in f32, f16 and bf16 for i < 64, so that the tests know it.
Made with PyTorch 2.15.
"""

import collections
import io
import os
import zipfile

import torch

os.chdir(os.path.dirname(os.path.abspath(__file__)))


def ramp(*shape, dtype=torch.float32):
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float32) / 8 - 2).reshape(shape).to(dtype)


def state_dict():
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(ramp(4, 3))
    module.register_buffer("position_ids", torch.arange(5)[None])
    state = module.state_dict()  # an OrderedDict with `_metadata`
    state["half"] = ramp(2, 3, 5, dtype=torch.float16)
    state["bfloat"] = ramp(33, dtype=torch.bfloat16)
    state["parameter"] = torch.nn.Parameter(ramp(7))
    state["tied"] = state["weight"]
    state["second_row"] = state["weight"][1]  # a view of the same storage
    state["mask"] = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    state["scalar"] = torch.tensor(-2.0)
    state["empty"] = torch.zeros(0, 4)
    state["step"] = 1000  # not a tensor
    return state


torch.save(state_dict(), "current.bin")
torch.save(state_dict(), "protocol_4.bin", pickle_protocol=4)

# As published in 2022: the top folder is `archive`, and there is neither a byte order nor a serialization id.
with zipfile.ZipFile("current.bin") as new, zipfile.ZipFile("of_2022.bin", "w", zipfile.ZIP_STORED) as old:
    for name in new.namelist():
        top, _, rest = name.partition("/")
        if rest == "data.pkl" or rest == "version" or rest.startswith("data/"):
            old.writestr(zipfile.ZipInfo("archive/" + rest), new.read(name))

# Refused.
torch.save({"transposed": ramp(3, 4).t()}, "transposed.bin")
torch.save({"model": {"weight": ramp(2)}, "epoch": 3}, "nested.bin")
torch.save(torch.nn.Linear(2, 1), "module.bin")
torch.save({"weight": ramp(2)}, "legacy.bin", _use_new_zipfile_serialization=False)
torch.jit.script(torch.nn.Linear(2, 1)).save("program.bin")
