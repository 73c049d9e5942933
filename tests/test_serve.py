"""`ganrun serve`: the same bytes as `ganrun sample` and `translate`, one clear line for every mistake, who may ask."""

import base64
import io
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from serving import CLASSES, sampler_file, serving, translator_file, until

from ganrun import cli
from ganrun.commands.serve.batching import Batcher, Full, Job

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(sampler_file(tmp_path_factory.mktemp("serve") / "generator.safetensors"), "batch_size=16") as found:
        yield found


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    file = translator_file(tmp_path_factory.mktemp("serve") / "generator.safetensors")
    with serving(file, "max_pixels=40000", "max_bytes=200000") as found:
        yield found


@pytest.fixture(scope="module")
def drawn(server, tmp_path_factory):
    """A function: what `ganrun sample` writes for these words, as bytes."""
    folder = tmp_path_factory.mktemp("drawn")

    def draw(name: str, *words: str) -> bytes:
        out = folder / f"{len(list(folder.iterdir()))}-{name}"
        assert cli.run(["sample", f"from={server.file}", f"out={out}", "device=cpu", *words]) == 0
        return out.read_bytes() if out.is_file() else (out / "ant" / "00000.png").read_bytes()

    return draw


def test_the_bytes_are_those_of_ganrun_sample_whatever_shares_a_forward_pass(server, drawn):
    cases = {
        "a.npz": ({"num": 50, "seed": 3, "format": "npz"}, ["num=50", "seed=3"]),
        "b.npz": ({"num": 5, "seed": 4, "label": "cat", "truncation": 0.5, "format": "npz"},
                  ["num=5", "seed=4", "label=cat", "truncation=0.5"]),
        "c.png": ({"num": 12, "seed": 5, "format": "grid"}, ["num=12", "seed=5"]),
        "d.png": ({"num": 6, "seed": 5, "label": [3, "bee"], "format": "grid"}, ["num=6", "seed=5", "label=[3,bee]"]),
        "e": ({"seed": 6, "label": 0}, ["num=1", "seed=6", "label=0"]),
    }  # fmt: skip
    wanted = {name: drawn(name, *words) for name, (_, words) in cases.items()}
    with ThreadPoolExecutor(10) as pool:
        asked = [(name, pool.submit(server.sample, **body)) for name, (body, _) in cases.items() for _ in range(4)]
        for name, answer in asked:
            assert answer.result().status_code == 200, answer.result().text
            assert answer.result().content == wanted[name], name
    assert server.figure("ganrun_batch_images_count") < server.figure("ganrun_batch_images_sum")
    assert server.sample(seed=6).headers["content-type"] == "image/png"


def arrays(answer: httpx.Response) -> dict[str, np.ndarray]:
    assert answer.status_code == 200, answer.text
    return dict(np.load(io.BytesIO(answer.content)))


def test_first_goes_on_with_the_samples_and_their_labels(server):
    whole = arrays(server.sample(num=9, seed=1, format="npz"))
    part = arrays(server.sample(num=4, first=5, seed=1, format="npz"))
    assert (part["arr_0"] == whole["arr_0"][5:]).all() and part["labels"].tolist() == [1, 2, 3, 0]
    assert part["classes"].tolist() == CLASSES
    assert "expected a multiple of 4" in server.told(num=4, first=5, format="grid")


def test_a_walk_goes_from_one_seed_to_the_other(server):
    ends = [arrays(server.sample(num=2, seed=seed, label=1, format="npz"))["arr_0"] for seed in (1, 2)]
    walk = [arrays(server.sample(num=2, seed=1, to=2, at=at, label=1, format="npz"))["arr_0"] for at in (0, 0.5, 1)]
    assert (walk[0] == ends[0]).all() and (walk[2] == ends[1]).all()
    assert (walk[1] != walk[0]).any() and (walk[1] != walk[2]).any()


REFUSED = {
    '{"num": 0}': "num=0; expected at least 1",
    '{"num": "4"}': "num=4; expected an integer",
    '{"num": 4.0}': "num=4.0; expected an integer, as num=4",
    '{"num": true}': "num=true; expected an integer",
    '{"num": null}': "num=null; expected an integer",
    '{"num": 257, "format": "npz"}': "num=257; expected at most 256 samples of this size in a request",
    '{"num": 2}': "format=png: one image, but num=2; valid: grid, npz",
    '{"seed": -1}': "seed=-1; expected at least 0",
    '{"seed": 1e400}': "seed=inf; expected an integer",
    '{"seed": 9223372036854775808}': "expected at most 9,223,372,036,854,775,807",
    '{"truncation": NaN}': "truncation=nan; expected a finite number",
    '{"truncation": 0}': "truncation=0; expected more than 0, or null for none",
    '{"truncation_cutoff": 2}': "it needs a style-based generator",
    '{"at": 0.5}': "at=0.5: it acts with to= only",
    '{"to": 3, "at": 1.5}': "at=1.5; expected at most 1",
    '{"lable": 3}': "lable: there is no such key; did you mean label? valid: label, at, first, format",
    '{"label": "cta"}': "label=cta; expected names of classes, or indices from 0 to 3, several in brackets; did",
    '{"label": 4}': "indices from 0 to 3",
    '{"label": true}': "label=True; expected text, an integer",
    '{"label": [[1]]}': "expected text, an integer",
    '{"label": []}': "expected names of classes",
    '{"format": "jpg"}': "format=jpg; expected one of png, grid, npz",
    '{"seed": 1, "seed": 2}': "seed: it is given twice",
    "[1]": "the body is JSON, but no object",
    "{": "the body is no JSON",
    "[" * 100_000: "the body is no JSON",
    '{"num": ' + "9" * 5000 + "}": "the body is no JSON",
}


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: body[:40])
def test_mistakes_are_told_in_one_line_with_the_words_of_the_command_line(server, body):
    answer = server.client.post("/sample", content=body, headers=JSON)
    told = answer.json()["detail"]
    assert answer.status_code == 422 and "\n" not in told and len(told) < 700
    assert REFUSED[body].casefold() in told.casefold(), told


def test_some_words_are_the_very_same(server, capsys):
    for words, body in {
        "label=cta": {"label": "cta"},
        "num=0": {"num": 0},
        "truncation=0": {"truncation": 0},
        "seed=x": {"seed": "x"},
    }.items():
        assert cli.run(["sample", f"from={server.file}", words]) == 2
        assert capsys.readouterr().err == f"ganrun: {server.told(**body)}\n"


def test_other_mistakes(server):
    client = server.client
    assert client.post("/sample?num=3").json()["detail"].startswith("?num=: there is no such parameter")
    assert client.post("/sample", content="seed=3", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post("/sample", content=b"{}" + b" " * 2**24, headers=JSON).status_code == 413
    assert (
        client.post("/sample", content=iter([b" " * 2**20] * 17), headers=JSON).status_code == 413
    )  # without a length
    assert client.post("/translate", content=b"x").json()["detail"].endswith("use POST /sample")
    assert "did you mean /sample" in client.get("/samples").json()["detail"]
    assert client.get("/sample").status_code == 405
    assert client.post("/sample").status_code == 200  # nothing asked: sample 0 of seed 0


def test_pages_of_other_sites_get_nothing(server):
    client = server.client
    assert client.get("/health", headers={"Host": "evil.example"}).status_code == 403  # DNS rebinding
    assert client.get("/health", headers={"Host": "localhost:99"}).status_code == 200
    assert client.post("/sample", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post("/sample", headers={"Origin": "null"}).status_code == 403
    assert client.post("/sample", headers={"Origin": "http://localhost:3000"}).status_code == 403
    assert client.post("/sample", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/sample", headers={"Origin": server.url, "Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_another_address_needs_a_token_and_nothing_is_answered_without_it(server, tmp_path, capsys, monkeypatch):
    words = ["serve", f"from={server.file}", "port=0", "host=0.0.0.0"]
    for token, told in {"": "set GANRUN_TOKEN to a secret", "short": "expected at least 16", "ü" * 20: "ASCII"}.items():
        monkeypatch.setenv("GANRUN_TOKEN", token)
        assert cli.run(words) == 2 and told in capsys.readouterr().err
    token = "a-secret-of-the-test"
    with serving(server.file, "host=0.0.0.0", env={"GANRUN_TOKEN": token}) as guarded:
        paths = httpx.get(f"{guarded.url}/openapi.json", headers={"Authorization": f"Bearer {token}"}).json()["paths"]
        basic = base64.b64encode(f"me:{token}".encode()).decode()
        wrong = (
            {},
            *({"Authorization": text} for text in (token, "Bearer", f"Bearer {token}x", "Basic me", "Basic bTp4")),
        )
        for path in (*paths, "/", "/docs", "/page/page.js", "/nope"):
            for method in ("GET", "POST", "HEAD", "OPTIONS"):
                answer = guarded.client.request(method, path, headers=wrong[len(path) % len(wrong)])
                assert answer.status_code == 401 and "Basic" in answer.headers["www-authenticate"]
        for right in (f"Bearer {token}", f"bearer {token}", f"Basic {basic}"):
            assert guarded.client.get("/health", headers={"Authorization": right}).status_code == 200
        right = {"Authorization": f"Bearer {token}"}
        assert guarded.client.post("/sample", headers=right).status_code == 200
        assert guarded.client.post("/sample", headers=right | {"Origin": "http://evil.example"}).status_code == 403
        guarded.client.headers.update(right)
        assert guarded.figure('ganrun_requests_total{route="/sample",status="200"}') == 1


def picture(*size: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(buffer, "PNG")  # other noise each time
    return buffer.getvalue()


def test_translations_are_those_of_ganrun_translate(translator, tmp_path):
    for size in ((32, 32), (37, 21)):
        image = picture(*size)
        (tmp_path / "in.png").write_bytes(image)
        words = [f"input={tmp_path / 'in.png'}", f"out={tmp_path / 'out.png'}", "overwrite=true", "device=cpu"]
        assert cli.run(["translate", f"from={translator.file}", *words]) == 0
        sent = [{"content": image}, {"files": {"image": image}}]
        for each in (*sent, sent[0] | {"headers": {"Content-Type": "image/png"}}):
            answer = translator.client.post("/translate?direction=a2b", **each)
            assert answer.status_code == 200, answer.text
            assert answer.content == (tmp_path / "out.png").read_bytes()


def test_what_cannot_be_translated_is_told(translator):
    post = translator.client.post
    bomb = io.BytesIO()
    Image.new("L", (6000, 6000)).save(bomb, "PNG")
    for content, told in {
        b"": "the body is empty",
        b"no image": "not an image that Pillow can read",
        picture(32, 32)[:200]: "truncated",
        bomb.getvalue(): "36,000,000 pixels; at most 40,000 are read",
    }.items():
        answer = post("/translate", content=content)
        assert answer.status_code == 422 and told in answer.json()["detail"], answer.text
    assert post("/translate", content=b"x" * 200_001).status_code == 413
    assert post("/translate", content=b"{}", headers=JSON).status_code == 415
    assert "did you mean a2b" in post("/translate?direction=a2", content=picture(8, 8)).json()["detail"]
    assert "pad=maybe" in post("/translate?pad=maybe", content=picture(8, 8)).json()["detail"]
    assert "there is no such field" in post("/translate", files={"photo": picture(8, 8)}).json()["detail"]
    assert post("/translate", content=b"--x", headers={"Content-Type": "multipart/form-data"}).status_code == 400
    assert translator.told().endswith("use POST /translate")


def test_the_api_describes_itself_without_a_network(server):
    found = server.client.get("/openapi.json").json()
    body = found["paths"]["/sample"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["num"]["minimum"] == 1 and body["properties"]["format"]["enum"] == ["png", "grid", "npz"]
    assert "429" in found["paths"]["/translate"]["post"]["responses"]
    for path in ("/", "/docs", "/page/page.js", "/page/docs.js", "/page/style.css"):
        answer = server.client.get(path)
        assert answer.status_code == 200 and "default-src 'self'" in answer.headers["content-security-policy"]
        assert "http://" not in answer.text and "https://" not in answer.text, path


def test_a_full_queue_answers_429_and_when_to_come_back(server):
    with serving(server.file, "wait=1000", "queue=8", "most=8") as small, ThreadPoolExecutor(1) as pool:
        first = pool.submit(small.sample, num=8, format="npz")
        until(lambda: small.client.get("/health").json()["queue"] == 8)
        second = small.sample(num=1)
        assert second.status_code == 429 and 1 <= int(second.headers["retry-after"]) <= 60
        assert "the queue is full" in second.json()["detail"] and first.result().status_code == 200


def test_jobs_of_one_key_share_a_forward_pass_in_order():
    passes, gate = [], threading.Event()

    def forward(rows):
        gate.wait(10)
        passes.append(rows.tolist())
        return rows * 2

    batcher = Batcher(batch_size=4, wait=0.0, queue=12)
    first = batcher.submit([Job("a", forward, (torch.tensor([0]),), 1)])
    time.sleep(0.05)  # it is taken; the others wait
    jobs = [Job(key, forward, (torch.arange(size) + 10 * i,), size) for i, (key, size) in enumerate(
        [("a", 2), ("b", 1), ("a", 1), ("a", 3), ("a", 1)], 1)]  # fmt: skip
    others = batcher.submit(jobs)
    with pytest.raises(Full):
        batcher.submit([Job("a", forward, (torch.arange(5),), 5)])
    gate.set()
    assert [one.result(10).tolist() for one in (*first, *others)][:3] == [[0], [20, 22], [40]]
    assert passes == [[0], [10, 11, 30, 50], [20], [40, 41, 42]]
    batcher.close()


def test_an_error_reaches_those_whose_pass_it_was():
    def fails(rows):
        raise RuntimeError("no")

    batcher = Batcher(batch_size=4, wait=0.0, queue=9)
    (bad,) = batcher.submit([Job("x", fails, (torch.zeros(1),), 1)])
    (good,) = batcher.submit([Job("y", torch.neg, (torch.ones(1),), 1)])
    assert isinstance(bad.exception(10), RuntimeError) and good.result(10).item() == -1
    batcher.close()


MISTAKES = {
    "": "from= must be given",
    "from=nowhere": "from=nowhere: there is no such run directory",
    "from={file} port=70000": "port=70000; expected at most 65,535",
    "from={file} port=http": "port=http; expected an integer",
    "from={file} prot=1": "did you mean port or",
    "from={file} queue=10": "a request of so many images would never find room",
    "from={file} watch=0": "watch=0; expected at least 0.1 seconds, or null",
    "from={file} host=192.0.2.1": "GANRUN_TOKEN",
    "from={file} host=127.0.0.1 port={taken}": "cannot listen there: Address already in use; port=0 picks a free one",
    "from={broken}": "cannot be read as a generator",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_on_the_command_line(server, words, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("GANRUN_TOKEN", raising=False)
    broken = sampler_file(tmp_path / "g.safetensors")
    broken.write_bytes(broken.read_bytes()[:-10])
    given = words.format(file=server.file, taken=server.url.rpartition(":")[2], broken=broken)
    assert cli.run(["serve", *given.split()]) == 2
    err = capsys.readouterr().err
    assert MISTAKES[words] in err and err.count("\n") == 1, err


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from ganrun import cli; cli.run(['serve', '--help']); print({'torch', 'fastapi'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("set()\n") and "  host=127.0.0.1 " in done.stdout, done.stdout + done.stderr


def test_a_missing_package_is_named(server, capsys, monkeypatch):
    monkeypatch.setattr("ganrun.errors.find_spec", lambda name: None if name == "fastapi" else object())
    assert cli.run(["serve", f"from={server.file}"]) == 2
    assert capsys.readouterr().err == 'ganrun: ganrun serve needs fastapi: pip install "ganrun[serve]"\n'


def test_what_was_served_is_counted(server):
    before = server.figure("ganrun_samples_total")
    server.sample(num=7, seed=100, format="npz")
    assert server.figure("ganrun_samples_total") == before + 7
    text = server.client.get("/metrics").text
    for name in ("request_seconds_bucket", "batch_images_bucket", "pixel_spread", "twins", "duplicates_total"):
        assert f"\nganrun_{name}" in text
    assert json.loads(server.client.get("/generator").text)["trained"]["steps"] == 7
