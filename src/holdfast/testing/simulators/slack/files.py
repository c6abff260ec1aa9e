"""Files at Slack: an address to upload to, the upload, and what makes it a file that people see."""

from collections.abc import Sequence
from typing import cast

from holdfast.testing.simulators.forms import media_type, multipart
from holdfast.testing.simulators.simulator import Request, Response, route
from holdfast.testing.simulators.slack.api import Refused, SlackApi, code, listed, number, ok, plain, web_method
from holdfast.testing.simulators.slack.workspace import Thing, UploadedFile

UPLOADS = "/upload/v1/"


class SlackFiles(SlackApi):
    """The three steps of an upload: https://docs.slack.dev/messaging/working-with-files"""

    def _forget(self) -> None:
        super()._forget()
        self.files: dict[str, UploadedFile] = {}
        """By id; those whose upload was never completed too."""

    @web_method("files.getUploadURLExternal", "files.create")
    def begin_upload(self, request: Request) -> Response:
        """Where the file's bytes go; without the other two steps nobody ever sees it."""
        asked = self._authorize(request)
        name, length = str(asked.get("filename") or ""), int(number(asked, "length", 0))
        if not name or length <= 0:
            raise Refused("invalid_arguments", response_metadata={"messages": ["[ERROR] filename and length"]})
        random = self.random()
        file = UploadedFile(
            id=f"F{code(random)}",
            name=name,
            length=length,
            created=self._unix(),
            upload=f"{UPLOADS}{random.getrandbits(256):064x}",
        )
        self.files[file.id] = file
        return ok(upload_url=f"{self.base_url}{file.upload}", file_id=file.id)

    @route("POST", f"{UPLOADS}{{token}}", "files.upload")
    def take_upload(self, request: Request) -> Response:
        """Raw bytes, or a form with one file; as many as were announced."""
        file = next((one for one in self.files.values() if one.upload == request.path), None)
        if file is None or file.is_shown:
            return plain("no_file", 404)
        content = request.body
        if media_type(request) == "multipart/form-data":
            content = next((content for _, content in multipart(request)[1].values()), b"")
        if len(content) != file.length:
            return plain(f"expected {file.length} bytes and got {len(content)}", 400)
        file.content = content
        return plain(f"OK - {len(content)}", 200)

    @web_method("files.completeUploadExternal", "files.share")
    def complete_upload(self, request: Request) -> Response:
        """The files are there from now on, and where a channel is named, a message shows them."""
        asked = self._authorize(request)
        wanted = [cast(Thing, one) for one in listed(asked, "files") if isinstance(one, dict)]
        found = [self._uploaded(str(one.get("id"))) for one in wanted]
        if not found:
            raise Refused("invalid_arguments", response_metadata={"messages": ["[ERROR] files"]})
        named = [str(asked.get("channel_id") or ""), *str(asked.get("channels") or "").split(",")]
        places = [self._writable(one) for one in named if one]
        for channel in places:
            self._throttle_channel(channel)
        for one, file in zip(wanted, found, strict=True):
            file.title, file.is_shown = str(one.get("title") or file.name), True
        told = [self._file(file) for file in found]
        for channel in places:
            content: Thing = {"text": str(asked.get("initial_comment") or ""), "files": told}
            content |= {"thread_ts": asked["thread_ts"]} if asked.get("thread_ts") else {}
            self._post(channel, content, to=channel.id)
        return ok(files=told)

    @web_method("files.info", "files.fetch")
    def file_info(self, request: Request) -> Response:
        asked = self._authorize(request)
        file = self.files.get(str(asked.get("file", "")))
        if file is None or not file.is_shown:
            raise Refused("file_not_found")
        return ok(file=self._file(file), comments=cast(Sequence[Thing], []))

    def _uploaded(self, id: str) -> UploadedFile:
        file = self.files.get(id)
        if file is None or file.content is None or file.is_shown:
            raise Refused("file_not_found")
        return file

    def _file(self, file: UploadedFile) -> Thing:
        where = f"{self.base_url}/files-pri/{self.team}-{file.id}/{file.name}"
        return {
            "id": file.id,
            "created": file.created,
            "timestamp": file.created,
            "name": file.name,
            "title": file.title,
            "user": self.bot_user,
            "user_team": self.team,
            "size": file.length,
            "mode": "hosted",
            "is_external": False,
            "is_public": True,
            "url_private": where,
            "url_private_download": where,
            "permalink": f"https://simulated.slack.com/files/{self.bot_user}/{file.id}/{file.name}",
        }
