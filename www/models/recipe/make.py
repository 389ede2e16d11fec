"""All steps: from a folder of books to both models with their figures and samples.

Usage: python make.py FOLDER_OF_TXT BUILD_FOLDER [--smoke]

A step whose result is there already is not made again, and a training goes on from its last checkpoint: a run that was
stopped is started again with the same command. `--smoke` is a proof that every step works, with few steps of training.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
MODELS = {"gpt2": "storyteller", "opt": "storyteller-opt"}
TOGETHER, STEPS = 1250, {"gpt2": 1912, "opt": 1944}  # the clock ended the second part, on two cores that were not alike
SAMPLES, SMOKE_SAMPLES = 10, 1  # of each prompt
SMOKE_BOOKS = 8
SMOKE_TOGETHER, SMOKE_STEPS, SMOKE_UNLOOP = 4, {"gpt2": 8, "opt": 8}, 2
# glibc gives large blocks back to the system after every use, and the system clears the pages again and again.
MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_TOP_PAD_": str(2**28)}


def run(script, *arguments):
    print(f"- {script}", flush=True)
    subprocess.run([sys.executable, HERE / script, *map(str, arguments)], check=True)


def train(build, together, steps, report_every):
    """Both trainings, a process each, with their logs."""
    (build / "meeting").unlink(missing_ok=True)
    started = []
    for name in MODELS:
        log = open(build / f"{name}.log", "a")
        schedule = [f"--part-at={together}", f"--decay-at={together}", f"--steps={steps[name]}", f"--report-every={report_every}"]
        command = [sys.executable, HERE / "train.py", name, build, *schedule]
        started.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | MEMORY))
    if any([process.wait() for process in started]):
        sys.exit(f"a training failed: see {build}/gpt2.log and {build}/opt.log")


def publish(build, name, model, smoke):
    """What follows for a trained model; the two know nothing of each other."""
    run("unloop.py", name, build, *([SMOKE_UNLOOP] if smoke else []))
    run("export.py", name, build, build / model)
    run("evaluate.py", build, build / model, build / f"{model}.figures.json")
    run("samples.py", build, build / model, build / f"{model}.samples.json", SMOKE_SAMPLES if smoke else SAMPLES)
    run("card.py", name, build, build / model)


def main(books, build, smoke):
    build.mkdir(parents=True, exist_ok=True)
    if not (build / "train.bin").exists():
        run("prepare.py", books, build, *([SMOKE_BOOKS] if smoke else []))
    print("- train.py", flush=True)
    train(build, *((SMOKE_TOGETHER, SMOKE_STEPS, 4) if smoke else (TOGETHER, STEPS, 50)))
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda of: publish(build, *of, smoke), MODELS.items()))
    run("curve.py", build, build / "curve.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "--smoke" in sys.argv)
