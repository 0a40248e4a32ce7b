"""The page: what stands where on it, and what happens at which click. Sessions do the work (session.py)."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from larvseg_jax.errors import UserError
from larvseg_jax.page.session import Limits, Session, Sessions
from larvseg_jax.page.view import lesson, table, viewer
from larvseg_jax.predict.names import FORMATS
from larvseg_jax.predict.segmenter import Segmenter
from larvseg_jax.shipped.shipped import PHOTOS

_JS = (Path(__file__).parent / "viewer.js").read_text("utf-8")
_WAITING = 8  # requests; who comes then is told to try again
_CACHE = 600, 7200  # seconds between two looks for old uploads, and until they are old
_ONE_AT_A_TIME: dict[str, Any] = dict(concurrency_id="model", concurrency_limit=1, api_visibility="private")
_CLASSES = "Synonyms, branches of WordNet, class lists: as `larvseg predict --classes`."
_DOWNLOAD = "() => setTimeout(() => document.querySelector('#lv-zip').click(), 300)"


class Page:
    """What happens on the page; each call gives new values of components, in the order of `build`."""

    def __init__(self, sessions: Sessions, names: list[str]) -> None:
        self._sessions, self._names = sessions, names

    def look(self, photo: str | None, chosen: list[str] | None, text: str | None, request: gr.Request) -> list[Any]:
        """Segments the picture; new viewers, tables, and how much is marked."""
        session = self._session(request)
        with told():
            remarks = session.look(photo or "", chosen or [], text or "")
        for remark in remarks:
            gr.Warning(html.escape(remark, quote=False))
        return self._shown(session)

    def click(self, event: gr.EventData, request: gr.Request) -> str:
        """Marks a pixel; how much is marked. The page has drawn the mark itself."""
        session = self._session(request)
        session.click(str(event.photo), float(event.x), float(event.y))
        return _marked(session)

    def clear(self, request: gr.Request) -> list[Any]:
        """Forgets all marks."""
        session = self._session(request)
        session.clicks = {}
        return self._shown(session)

    def teach(
        self, name: str | None, photo: str | None, chosen: list[str] | None, text: str | None, request: gr.Request
    ) -> list[Any]:
        """Teaches what is marked and looks at the picture again; as `look`, and classes, name and taught classes."""
        session = self._session(request)
        with told():
            session.teach(name or "")
        named = session.taught[-1]
        chosen = [*chosen, named] if chosen else []
        gr.Info(f"{html.escape(named)} is known now, on this page.")
        return [*self._again(session, photo, chosen, text, request), *_classes(session, chosen)]

    def remove(
        self, name: str | None, photo: str | None, chosen: list[str] | None, text: str | None, request: gr.Request
    ) -> list[Any]:
        """Forgets a taught class and looks again; as `teach`."""
        session = self._session(request)
        with told():
            session.remove(name or "")
        chosen = [other for other in chosen or [] if other != name]
        return [*self._again(session, photo, chosen, text, request), *_classes(session, chosen)]

    def download(self, formats: list[str], request: gr.Request) -> str:
        """Path of a zip with the files of what is shown."""
        with told():
            return str(self._session(request).archive(formats))

    def end(self, request: gr.Request) -> None:
        """The page was closed."""
        self._sessions.end(request.session_hash or "")

    def _session(self, request: gr.Request) -> Session:
        return self._sessions.of(request.session_hash or "")

    def _again(
        self, session: Session, photo: str | None, chosen: list[str], text: str | None, request: gr.Request
    ) -> list[Any]:
        """As `look`; that the picture cannot be looked at undoes nothing of what was done before."""
        try:
            return self.look(photo, chosen, text, request)
        except gr.Error as error:
            gr.Warning(error.message)
            return self._shown(session)

    def _shown(self, session: Session) -> list[Any]:
        titles = {name: name if len(self._names) > 1 else "" for name in self._names}
        clicks = session.clicks.get(session.photo, [])
        found = {name: session.results.get(name) for name in self._names}
        viewers = [viewer(titles[name], result, session.token, clicks) for name, result in found.items()]
        return [*viewers, *(table(titles[name], result) for name, result in found.items()), _marked(session)]


def _marked(session: Session) -> str:
    return lesson(sum(map(len, session.clicks.values())), len(session.clicks))


def _classes(session: Session, chosen: list[str]) -> list[Any]:
    """The list of classes, the name of the next one, and the list of taught ones."""
    last = session.taught[-1] if session.taught else None
    taught = gr.update(choices=session.taught, value=last, visible=bool(session.taught))
    return [gr.update(choices=session.choices, value=chosen), "", taught, gr.update(visible=bool(session.taught))]


@contextlib.contextmanager
def told() -> Iterator[None]:
    """A UserError becomes a line on the page, on which names are text and no HTML; the server goes on."""
    try:
        yield
    except UserError as error:
        raise gr.Error(html.escape(str(error), quote=False), duration=20, print_exception=False) from None


def build(models: Mapping[str, Segmenter], limits: Limits, folder: Path) -> gr.Blocks:
    """The page for one model or several.

    Args:
      models: name -> model.
      limits: of a picture.
      folder: for files.
    """
    sessions = Sessions(models, limits, folder)
    page, names = Page(sessions, list(models)), list(models)
    with gr.Blocks(title=f"{', '.join(names)}: larvseg", analytics_enabled=False, delete_cache=_CACHE) as blocks:
        gr.Markdown(f"### What is in your picture? &nbsp;Model: {html.escape(', '.join(names))}")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                photo, chosen, text, run = _asked(Session(models, limits, folder).choices)
            with gr.Column(scale=3, min_width=300):
                viewers = _side_by_side(names, viewer("", None, "", []), _JS)
                name, teach, clear, marked, taught, remove = _lesson()
                tables = _side_by_side(names, "")
                formats, save, saved = _files()
        asked, shown = [photo, chosen, text], [*viewers, *tables, marked]
        gr.on(
            [photo.change, run.click, text.submit], page.look, asked, shown, show_progress_on=viewers, **_ONE_AT_A_TIME
        )
        for one in viewers:
            one.click(page.click, None, marked, queue=False, show_progress="hidden", api_visibility="private")
        clear.click(page.clear, None, shown, **_ONE_AT_A_TIME)
        changed = [*shown, chosen, name, taught, remove]
        gr.on([teach.click, name.submit], page.teach, [name, *asked], changed, **_ONE_AT_A_TIME)
        remove.click(page.remove, [taught, *asked], changed, **_ONE_AT_A_TIME)
        written = save.click(page.download, formats, saved, **_ONE_AT_A_TIME)
        written.success(None, js=_DOWNLOAD, api_visibility="private")
        blocks.unload(page.end)
    return blocks.queue(max_size=_WAITING, default_concurrency_limit=1)


def _asked(choices: list[tuple[str, str]]) -> tuple[gr.Image, gr.Dropdown, gr.Textbox, gr.Button]:
    """Picture and classes."""
    photo = gr.Image(label="Picture", type="filepath", sources=["upload", "clipboard"], height=220, elem_id="lv-photo")
    # Not decoded before `Session.look` does, with its limits and messages.
    photo.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    gr.Examples([[str(path)] for path in sorted(PHOTOS.glob("*.jpg"))], photo, cache_examples=False)
    chosen = gr.Dropdown(
        choices,
        value=[],
        multiselect=True,
        label="Classes that compete",
        info="None chosen: all.",
        elem_id="lv-classes",
    )
    text = gr.Textbox(label="... or in words", info=_CLASSES, placeholder="dog.n.01, couch", elem_id="lv-text")
    return photo, chosen, text, gr.Button("Segment", variant="primary", elem_id="lv-run")


def _side_by_side(names: list[str], value: str, js: str | None = None) -> list[gr.HTML]:
    """A part of the page for each model; on a narrow screen one below the other."""
    parts = []
    with gr.Row():
        for _ in names:
            with gr.Column(min_width=280):
                parts.append(gr.HTML(value, js_on_load=js, apply_default_css=False))
    return parts


def _lesson() -> tuple[gr.Textbox, gr.Button, gr.Button, gr.HTML, gr.Dropdown, gr.Button]:
    """What teaches a class and removes it."""
    with gr.Column(variant="panel"):
        marked = gr.HTML(lesson(0, 0), apply_default_css=False, elem_id="lv-marked")
        with gr.Row(equal_height=True):
            name = gr.Textbox(
                show_label=False, placeholder="name of a new class", scale=3, min_width=160, elem_id="lv-name"
            )
            teach = gr.Button("Teach it", scale=1, min_width=100, elem_id="lv-teach")
            clear = gr.Button("Clear clicks", scale=1, min_width=100)
        with gr.Row(equal_height=True):
            taught = gr.Dropdown(
                [], label="Taught on this page", visible=False, scale=3, min_width=160, elem_id="lv-taught"
            )
            remove = gr.Button("Remove it", visible=False, scale=1, min_width=100, elem_id="lv-remove")
    return name, teach, clear, marked, taught, remove


def _files() -> tuple[gr.CheckboxGroup, gr.Button, gr.DownloadButton]:
    """What saves the files of `larvseg predict`; the second button is pressed by the page itself."""
    with gr.Row(equal_height=True):
        formats = gr.CheckboxGroup(list(FORMATS), value=[], label="Files: overlay, label map, JSON, and", scale=3)
        save = gr.Button("Download as a zip", scale=1, min_width=140, elem_id="lv-save")
        saved = gr.DownloadButton("zip", visible="hidden", elem_id="lv-zip")
    return formats, save, saved
