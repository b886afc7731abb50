"""Promise 3: what could not be verified is not verified; each detector is shown to detect."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conformance.observe import key_of, save_by_django, stored
from tests.servers.base import Headers, Options, Server
from tests.servers.s3 import client
from tests.site import Result, Site

FILES = {
    **{f"clean/{n}.jpg": b"clean %d" % n for n in range(4)},
    **{name: f"the content of {name}".encode() for name in ("flipped.jpg", "cut.txt", "grown")},
    **{
        name: f"the content of {name}".encode() for name in ("gone.png", "a/swap.jpg", "b/swap.jpg")
    },
    "empty": b"",
}
BROKEN = {"flipped.jpg", "cut.txt", "grown", "gone.png", "a/swap.jpg", "b/swap.jpg", "empty"}
MIB = 1 << 20


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def sabotage(server: Server, options: Options) -> None:
    """Do to the store, behind everybody's back, what disks, networks and people do."""
    keys = {name: key_of(server, options, name) for name in FILES}
    changed = {
        "flipped.jpg": flipped(FILES["flipped.jpg"]),
        "cut.txt": FILES["cut.txt"][:-1],
        "grown": FILES["grown"] + b"!",
        "a/swap.jpg": FILES["b/swap.jpg"],
        "b/swap.jpg": FILES["a/swap.jpg"],
        "empty": b"no longer",
    }
    for name, data in changed.items():
        server.put(options, keys[name], data)
    server.delete(options, keys["gone.png"])


def site_with(
    server: Server, options: Options, folder: Path, files: Mapping[str, bytes] = FILES
) -> Site:
    site = Site.on(server, options, folder)
    for name, data in files.items():
        site.add(name, data)
    return site


def names(result: Result) -> set[str]:
    return set(result.reasons())


def is_verified_by_content(result: Result) -> bool:
    """Tell whether each verified object carries evidence, and none that is only a size."""
    evidence = {kind: count["files"] for kind, count in result.report["evidence"].items()}
    verified = result.states().get("verified", 0)
    return evidence.keys() <= {"hash", "bytes"} and sum(evidence.values()) == verified


def test_check_and_verify_name_what_is_broken_and_nothing_else(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = site_with(server, bucket, tmp_path)
    done = site.migrate()
    assert (done.code, done.states()) == (0, {"verified": len(FILES)}), done.err
    assert is_verified_by_content(done)
    before = stored(server, bucket)
    sabotage(server, bucket)
    server.put(bucket, "not-ours.bin", b"not ours")

    read = site.run("verify", "--sample", "all")
    assert (read.code, names(read), read.report["sample"]["wrong"]) == (7, BROKEN, len(BROKEN))

    checked = site.run("check")
    assert (checked.code, names(checked)) == (7, BROKEN)
    assert checked.states() == {"verified": len(FILES) - len(BROKEN), "failed": len(BROKEN)}
    assert is_verified_by_content(checked)
    assert checked.report["extra"] == 1
    assert server.peek(bucket, "not-ours.bin").data == b"not ours"

    for key, held in before.items():
        server.put(bucket, key, held.data)
    repaired = site.run("check")
    assert (repaired.code, repaired.states()) == (0, {"verified": len(FILES)})


@pytest.mark.on("s3")
def test_verify_names_what_has_lost_its_headers_and_nothing_else(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    options = {**bucket, "object_parameters": {"CacheControl": "max-age=86400"}}
    files = {name: name.encode() for name in ("sound.jpg", "typed.jpg", "uncached.jpg", "meta.jpg")}
    site = site_with(server, options, tmp_path, files)
    assert site.migrate().code == 0
    kept = Headers(content_type="image/jpeg", cache_control="max-age=86400")
    changed = {
        "typed.jpg": Headers(content_type="text/html", cache_control="max-age=86400"),
        "uncached.jpg": Headers(content_type="image/jpeg"),
        "meta.jpg": Headers(**kept, metadata={"who": "somebody else"}),
    }
    for name, headers in changed.items():
        server.put(bucket, name, files[name], **headers)

    assert site.run("check").code == 0
    read = site.run("verify", "--sample", "all")
    assert read.code == 7
    expected = {"typed.jpg": "ContentType", "uncached.jpg": "CacheControl", "meta.jpg": "Metadata"}
    assert read.reasons().keys() == expected.keys()
    assert {n: w for n, w in expected.items() if w not in read.reasons()[n]} == {}
    assert "other headers" in read.reasons()["typed.jpg"]


@pytest.mark.parametrize("looks", [["verify"], ["verify", "check", "plan"]], ids="-".join)
@pytest.mark.on("moto", "azurite", "gcs")
def test_an_object_of_ours_that_lost_its_headers_is_stored_anew_and_looked_at_again(
    server: Server, bucket: Options, tmp_path: Path, looks: list[str]
) -> None:
    files = {name: name.encode() for name in ("typed.jpg", "sound.jpg")}
    site = site_with(server, bucket, tmp_path, files)
    assert site.migrate().code == 0
    before = stored(server, bucket)
    server.put(bucket, "typed.jpg", files["typed.jpg"], content_type="text/html")

    found = [site.run(look, *(["--sample", "all"] if look == "verify" else [])) for look in looks]
    assert found[0].code == 7
    assert found[0].states() == {"verified": 1, "failed": 1}
    mended = site.migrate()
    assert (mended.code, mended.states()) == (0, {"verified": 2})
    assert mended.report["changes"].keys() == {"same", "changed"}
    assert [c["files"] for c in mended.report["changes"].values()] == [1, 1]
    after = stored(server, bucket)
    assert after["typed.jpg"].content_type == "image/jpeg"
    assert after["sound.jpg"] == before["sound.jpg"]
    again = site.migrate()
    assert (again.code, again.report["changes"].keys()) == (0, {"same"})
    assert again.report["header_notes"] == []


@pytest.mark.on("s3")
def test_an_object_whose_hash_says_nothing_is_compared_by_its_bytes(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    data = hashlib.shake_128(b"seed").digest(9 * MIB + 17)
    site = site_with(server, bucket, tmp_path, {"same.bin": data, "other.bin": data})
    put_in_parts(bucket, "same.bin", data, part=5 * MIB)
    put_in_parts(bucket, "other.bin", data[:-1] + flipped(data[-1:]), part=5 * MIB)
    before = stored(server, bucket)

    done = site.migrate()
    assert (done.code, done.states()) == (7, {"verified": 1, "conflict": 1}), done.err
    hashed = before["same.bin"].etag == hashlib.md5(data).hexdigest()
    assert done.report["evidence"].keys() == {"hash" if hashed else "bytes"}
    assert names(done) == {"other.bin"}
    assert stored(server, bucket) == before


def put_in_parts(options: Options, key: str, data: bytes, *, part: int) -> None:
    """Store an object as a client does whose parts have another size than boto3's."""
    keys = options["access_key"], options["secret_key"]
    where = {"Bucket": options["bucket_name"], "Key": key}
    with client("s3", options["endpoint_url"], *keys) as s3:
        upload = {
            **where,
            "UploadId": s3.create_multipart_upload(**where, ACL="private")["UploadId"],
        }
        parts = []
        for number, start in enumerate(range(0, len(data), part), 1):
            body = data[start : start + part]
            answer = s3.upload_part(**upload, PartNumber=number, Body=body)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


@pytest.mark.on("s3")
def test_an_encrypted_object_is_verified_by_more_than_its_size(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    """With aws:kms an ETag is no MD5, on servers that do encrypt."""
    options = {**bucket, "object_parameters": {"ServerSideEncryption": "aws:kms"}}
    site = site_with(server, options, tmp_path, {"a.jpg": b"12345", "b.jpg": b"67890"})
    done = site.migrate()
    assert (done.code, done.states()) == (0, {"verified": 2}), done.err
    hashed = server.peek(bucket, "a.jpg").etag == hashlib.md5(b"12345").hexdigest()
    assert done.report["evidence"].keys() == {"hash" if hashed else "bytes"}
    server.put(bucket, "a.jpg", b"12346")
    checked = site.run("check")
    assert (checked.code, names(checked)) == (7, {"a.jpg"})


def test_check_does_not_vouch_for_a_source_that_has_changed(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = site_with(
        server, bucket, tmp_path, dict.fromkeys(("kept", "edited", "removed"), b"data")
    )
    assert site.migrate().code == 0
    (site.media / "edited").write_bytes(b"date")
    (site.media / "removed").unlink()
    checked = site.run("check")
    assert (checked.code, names(checked)) == (7, {"edited", "removed"})


def test_what_the_site_saved_itself_is_proven_like_the_rest(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = site_with(server, bucket, tmp_path, {"saved.jpg": b"saved", "new.jpg": b"new"})
    save_by_django(server, bucket, "saved.jpg", b"saved")
    done = site.migrate()
    assert (done.code, done.report["changes"].keys()) == (0, {"same", "new"}), done.err
    assert is_verified_by_content(done)
    server.put(bucket, key_of(server, bucket, "saved.jpg"), b"Saved")
    checked = site.run("check")
    assert (checked.code, names(checked)) == (7, {"saved.jpg"})
