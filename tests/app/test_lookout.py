"""Clients written for Amazon Lookout for Vision: only their endpoint and credentials change.

The client is the real library. Its present version has dropped the service; the files under `lookout_client` are what
the last version with it knew. The slow test asks that version itself.
"""

import base64
import io
import json
import subprocess
import threading
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import numpy as np
import pytest
import uvicorn
from botocore.config import Config
from botocore.exceptions import ClientError
from PIL import Image
from starlette.testclient import TestClient

from app.compat.lookout import confidence
from app.compat.problems import exception_of
from app.main import create_app
from app.settings import Settings
from models.heat_maps import mask_png
from tests.app.keyholders import token_of
from tests.app.working import asked, part
from tests.conftest import add

pytestmark = pytest.mark.usefixtures("outside_methods")
KNOWN = Path(__file__).parent / "lookout_client"
GOOD, SCRATCHED = part(1000), part(1002, scratch=12)
DETECT = "/compat/lookoutvision/2020-11-20/projects/parts/models/1/detect"


@pytest.fixture(scope="module")
def line(outside_methods: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service with a bank, and a scorer with heat maps under a name as that service gave them."""
    settings = Settings(
        data=tmp_path_factory.mktemp("line"), weights="stand-in", image_size=32, threads=1, body_limit_bytes=300_000
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        add(client, "parts", {f"n{number:02}": part(number) for number in range(60)})
        client.patch("/v1/collections/parts", json={"false_alarm_rate": 0.05}).raise_for_status()
        answer = client.put("/v1/collections/parts/scorers/7", json={"method": "contrast"}, params={"wait": 60})
        assert answer.json()["state"] == "succeeded", answer.text
        add(client, "small", {f"n{number}": part(number) for number in range(5)})
        yield client


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address of a server of an application that has been started."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def address(line: TestClient) -> Iterator[str]:
    with listening(line.app) as url:
        yield url


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    """What the users of that service have in their programs, with another endpoint."""
    session = botocore.session.Session()
    session.get_component("data_loader").search_paths.insert(0, str(KNOWN))
    made = boto3.Session(botocore_session=session).client(
        "lookoutvision",
        endpoint_url=f"{address}/compat/lookoutvision",
        region_name="us-east-1",
        aws_access_key_id="oddity-key",
        aws_secret_access_key="not looked at",
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield made
    made.close()


def detected(client: Any, image: bytes, version: str = "1", project: str = "parts") -> dict[str, Any]:
    answer = client.detect_anomalies(ProjectName=project, ModelVersion=version, Body=image, ContentType="image/png")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200 and answer["ResponseMetadata"]["RequestId"]
    result: dict[str, Any] = answer["DetectAnomalyResult"]
    return result


@pytest.mark.parametrize(("version", "scorer"), [("1", "dn2"), ("latest", "dn2"), ("dn2", "dn2"), ("7", "7")])
def test_the_verdict_is_that_of_the_scorer(client: Any, line: TestClient, version: str, scorer: str) -> None:
    for image in (GOOD, SCRATCHED):
        body = asked(line, "parts", [image], scorer=scorer)
        (ours,), rate = body["results"], body["calibration"]["false_alarm_rate"]
        result = detected(client, image, version)
        assert result["Source"] == {"Type": "direct"}
        assert result["IsAnomalous"] is ours["anomalous"] is (image is SCRATCHED)
        expected = confidence(ours["p_value"], rate, is_anomalous=ours["anomalous"])
        assert result["Confidence"] == pytest.approx(expected) and 0.5 <= result["Confidence"] <= 1
        assert ("AnomalyMask" in result) == ("Anomalies" in result) == (scorer == "7")


def test_the_mask_covers_the_defect_in_the_colour_that_is_named(client: Any, line: TestClient) -> None:
    result = detected(client, SCRATCHED, "7")
    background, anomaly = result["Anomalies"]
    assert (background["Name"], anomaly["Name"]) == ("background", "anomaly")
    mask = Image.open(io.BytesIO(result["AnomalyMask"]))
    assert mask.format == "PNG" and mask.size == (32, 32)
    pixels = np.asarray(mask.convert("RGB"))
    for one in (background, anomaly):
        colour = tuple(bytes.fromhex(one["PixelAnomaly"]["Color"].removeprefix("#")))
        share = (pixels == colour).all(axis=2).mean()
        assert one["PixelAnomaly"]["TotalPercentageArea"] == pytest.approx(share) and share > 0
    is_red = (pixels != 255).any(axis=2)
    assert is_red[14:20, 12:18].mean() > 0.5 > is_red[:8].mean()  # the scratch is at 12 to 24, 10 to 22
    told = asked(line, "parts", [SCRATCHED], scorer="7", heatmap=True)["results"][0]["heatmap"]
    heat = np.frombuffer(base64.b64decode(told["values"]), "<f4").reshape(told["shape"])
    grown = np.asarray(Image.fromarray(heat).resize((32, 32), Image.Resampling.BILINEAR))
    assert (is_red == (grown > told["border"])).all()


def test_a_mask_lies_on_the_part_that_the_network_saw() -> None:
    heat = np.array([[0.0, 9.0]], np.float32)
    data, share = mask_png(heat, 1.0, (0.25, 0.0, 0.75, 1.0), 400, 100)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert pixels.shape == (100, 400, 3) and (pixels[:, :100] == 255).all() and (pixels[:, 300:] == 255).all()
    assert (pixels[:, 290] == (220, 0, 0)).all() and share == (pixels[:, :, 1] == 0).mean()
    large, _ = mask_png(heat, 1.0, (0, 0, 1, 1), 9000, 50)
    assert Image.open(io.BytesIO(large)).size == (9000, 50)


def test_half_is_the_border() -> None:
    assert confidence(0.05, 0.05, is_anomalous=True) == confidence(0.05, 0.05, is_anomalous=False) == 0.5
    falling = [confidence(p, 0.05, is_anomalous=True) for p in (0.001, 0.01, 0.05)]
    rising = [confidence(p, 0.05, is_anomalous=False) for p in (0.06, 0.5, 1.0)]
    assert falling == sorted(falling, reverse=True) and rising == sorted(rising) and rising[0] > 0.5


@pytest.mark.parametrize(
    ("sent", "name", "status"),
    [
        ({"project": "none"}, "ResourceNotFoundException", 404),
        ({"version": "nobody"}, "ResourceNotFoundException", 404),
        ({"project": "small"}, "ConflictException", 409),
        ({"image": b"text"}, "ValidationException", 400),
        ({"image": b""}, "ValidationException", 400),
        ({"image": b"x" * 400_000}, "ValidationException", 400),
        ({"project": "a b"}, "ValidationException", 400),
    ],
)
def test_what_is_refused_is_the_exception_that_clients_catch(
    client: Any, sent: dict[str, Any], name: str, status: int
) -> None:
    with pytest.raises(getattr(client.exceptions, name)) as refused:
        detected(client, **{"image": GOOD, **sent})
    error = refused.value
    assert isinstance(error, ClientError) and error.response["Error"]["Message"]
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status
    if name in ("ResourceNotFoundException", "ConflictException"):
        kind, where = ("MODEL", "parts/nobody") if "version" in sent else ("PROJECT", sent["project"])
        assert (error.response["ResourceType"], error.response["ResourceId"]) == (kind, where)


def test_a_scorer_that_is_not_fitted_is_no_reason_to_ask_another(client: Any, line: TestClient) -> None:
    job = line.put("/v1/collections/small/scorers/9", json={"method": "contrast"}, params={"wait": 60}).json()
    assert job["state"] == "failed", "five images are too few to be fitted on"
    with pytest.raises(client.exceptions.ConflictException) as refused:
        detected(client, GOOD, "9", "small")
    assert refused.value.response["ResourceType"] == "MODEL"


def test_every_status_has_an_exception_of_that_service() -> None:
    known = json.loads((KNOWN / "lookoutvision" / "2020-11-20" / "service-2.json").read_text())
    errors = {one["shape"] for one in known["operations"]["DetectAnomalies"]["errors"]}
    for status in (400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 429, 500, 503, 507):
        name, given = exception_of(status)
        assert name in errors and known["shapes"][name]["error"]["httpStatusCode"] == given


def test_other_paths_keep_their_problems(line: TestClient) -> None:
    assert line.get("/v1/collections/none").headers["content-type"] == "application/problem+json"
    wrong = line.get(DETECT)
    assert (wrong.status_code, wrong.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert wrong.headers["x-amzn-requestid"] == wrong.headers["x-request-id"]


def test_the_key_is_the_access_key_id(line: TestClient, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, weights="stand-in", image_size=32, threads=1, access="keys")
    with TestClient(create_app(settings), raise_server_exceptions=False) as guarded:
        token = token_of(guarded, "camera", "read", collections=["parts"])

        def ask(key: str, project: str) -> tuple[int, str]:
            signed = f"AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/lookoutvision/aws4_request, Signature=0"
            answer = guarded.post(
                DETECT.replace("parts", project),
                content=GOOD,
                headers={"authorization": signed, "content-type": "image/png"},
            )
            return answer.status_code, answer.headers["x-amzn-errortype"]

        assert ask(token, "parts") == (404, "ResourceNotFoundException")  # let in: there is only no such collection
        assert ask(token, "others") == ask("nobody", "parts") == (403, "AccessDeniedException")


@pytest.mark.slow
def test_the_version_of_the_library_that_still_had_it(address: str, line: TestClient, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "boto3==1.37.*"], check=True)
    script = """
import base64, boto3, json, sys
url, *files = sys.argv[1:]
client = boto3.client("lookoutvision", endpoint_url=url + "/compat/lookoutvision", region_name="eu-west-1",
                      aws_access_key_id="oddity-key", aws_secret_access_key="x")
def detect(version, body):
    found = client.detect_anomalies(ProjectName="parts", ModelVersion=version, Body=body, ContentType="image/png")
    found = found["DetectAnomalyResult"]
    found["AnomalyMask"] = base64.b64encode(found.get("AnomalyMask", b"")).decode()
    return found
told = [detect(version, open(file, "rb").read()) for version in ("1", "7") for file in files]
try:
    detect("1", b"text")
except client.exceptions.ValidationException as error:
    told.append(str(error))
print(json.dumps([boto3.__version__, told]))
"""
    for name, image in (("good.png", GOOD), ("scratched.png", SCRATCHED)):
        (tmp_path / name).write_bytes(image)
    files = [str(tmp_path / name) for name in ("good.png", "scratched.png")]
    done = subprocess.run([python, "-c", script, address, *files], check=True, capture_output=True, text=True)
    version, told = json.loads(done.stdout)
    assert version.startswith("1.37.") and "ValidationException" in told.pop()
    for place, (scorer, image) in enumerate((s, i) for s in ("dn2", "7") for i in (GOOD, SCRATCHED)):
        body = asked(line, "parts", [image], scorer=scorer)
        (ours,), rate = body["results"], body["calibration"]["false_alarm_rate"]
        assert told[place]["IsAnomalous"] is ours["anomalous"]
        expected = confidence(ours["p_value"], rate, is_anomalous=ours["anomalous"])
        assert told[place]["Confidence"] == pytest.approx(expected)
    mask = Image.open(io.BytesIO(base64.b64decode(told[3]["AnomalyMask"]))).convert("RGB")
    assert mask.size == (32, 32) and (np.asarray(mask) == (220, 0, 0)).all(axis=2).any()
    assert [one["Name"] for one in told[3]["Anomalies"]] == ["background", "anomaly"]
    assert told[0]["AnomalyMask"] == ""
