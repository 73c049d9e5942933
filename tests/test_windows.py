"""Without what only POSIX has: the Python doors work, and the command says in one line where it runs."""

import forked
from conftest import TINY, ganrun

SCRIPT = """
import os, signal, sys

for name in [name for name in sys.modules if name == "ganrun" or name.startswith("ganrun.")]:
    del sys.modules[name]
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGALRM", "pthread_sigmask", "SIG_SETMASK"):
    delattr(signal, name)
for name in ("fork", "killpg", "setsid", "getuid", "sched_getaffinity"):
    delattr(os, name)
import ganrun

images = ganrun.load_generator("run/generator.safetensors").sample(2, seed=0)
print(list(images.shape), len(ganrun.load_discriminator("run/discriminator.safetensors").judge(images).logits))
from ganrun.cli import run

print(run(["--version"]), run(["sample", "from=run"]), run(["model=dcgan"]))
"""


def test_generators_and_discriminators_are_loaded_and_the_command_is_refused(tmp_path):
    ganrun(*TINY, "steps=1", "metric=[]", "export.discriminator=true", "run_dir=run", cwd=tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = forked.run(cwd=tmp_path, script=tmp_path / "script.py")
    assert done.out.splitlines()[0] == "[2, 1, 16, 16] 2" and done.out.splitlines()[-1] == "0 2 2"
    assert done.err.count("the command needs Linux or macOS") == done.err.count("\n") == 2
