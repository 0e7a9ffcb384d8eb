"""What a model, a server or a file wrote is shown, and never acted on."""

from __future__ import annotations

import pytest

from tpo_core import Candidate, Failure, Step, Trajectory
from tpo_core.report import Entry, run_page

RUN = "window.ran = (window.ran || 0) + 1"
ATTACKS = {
    "script": f"</script><script>{RUN}</script>",
    "image": f'<img src=x onerror="{RUN}"><svg onload="{RUN}"></svg>',
    "comment": f"<!--<script></script>--!><script>{RUN}</script>",
    "link": f'<a href="javascript:{RUN}">x</a><iframe srcdoc="<script>parent.ran=1</script>"></iframe>',
    "attribute": f'" onmouseover="{RUN}" x="',
    "entities": f"&lt;script&gt;{RUN}&lt;/script&gt;&#x202e;",
    "template": "${" + RUN + "} {{constructor.constructor('window.ran=1')()}} `" + RUN + "`",
    "json": '\\u003cscript\\u003e"}],"best":0,"__proto__":{"error":"x"}',
    "terminal": "\x1b]0;title\x07\x1b[31mred\x1b[2J\x00\x9b",
}
CODES = "202E 2066 200F FEFF 200B 2028 0000 001B 009B 000D D800 DFFF E0041 E0101 00AD"
UNSEEN = {chr(int(code, 16)): f"U+{code}" for code in CODES.split()}


def everywhere(text: str) -> Trajectory:
    """Put a text wherever a trajectory takes one."""
    first = Candidate(text, reward=1.0, feedback=text, heads={text: 1.0}, index=0)
    second = Candidate(f"{text} more", reward=2.0, step=1, fresh=False, index=1)
    return Trajectory(
        query=[{"role": text, "content": text}, {"role": "user", "content": [{text: text}]}],
        candidates=(first, second, Candidate(text, failure=Failure(text, text), index=2)),
        steps=(Step(1, first, first, text, text, Failure(text, text)),),
        stop_reason=text,
        seconds={"total": 1.0, text: 1.0},
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_shown_as_text_and_runs_nothing(page, attack):
    text = ATTACKS[attack]
    tree = everywhere(text)
    run = run_page([Entry(tree, name=text), Entry(tree, error=text)], title=text, about={text: text})
    for html, address in ((tree.to_html(title=text), ""), (run, "#0")):
        page.show(html, address).until("document.querySelector('.tree .text')")
        page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        page.until("document.querySelectorAll('.tree .card .body > *').length >= 3")
        page.run("document.querySelectorAll('.tree .switch button').forEach((b) => b.click())")
        assert page.ask("window.ran") is None
        shown = "[...document.querySelectorAll('.said .text')].map((e) => e.textContent)"
        assert plain(text) in page.ask(shown)
        assert page.ask("document.querySelectorAll('img, iframe, object, embed, main a').length") == 0
        assert page.ask("Object.prototype.error") is None


def plain(text: str) -> str:
    for character, name in UNSEEN.items():
        text = text.replace(character, name)
    return text.replace("\x07", "U+0007")


def test_what_is_unseen_or_reorders_text_is_written_out_everywhere(page):
    text = "a" + "".join(f"{c}-" for c in UNSEEN) + "z\r\nnext\tline 👩‍👩‍👧 می‌خواهم"
    page.show(everywhere(text).to_html()).until("document.querySelector('.tree')")
    page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.until("document.querySelectorAll('.card .body .text').length >= 2")
    assert "a" + "-".join(UNSEEN.values()) + "-z\nnext\tline 👩‍👩‍👧 می‌خواهم" in page.texts(".said .text")
    assert len(page.find(".said .unsafe")) >= len(UNSEEN)
    raw = [c for c in UNSEEN if c != "\r" and c in page.ask("document.querySelector('main').textContent")]
    assert raw == []


def test_text_that_runs_from_right_to_left_stays_in_its_box(page):
    page.show(Trajectory("שלום עולם", (Candidate("مرحبا", reward=1.0),)).to_html())
    assert page.ask("getComputedStyle(document.querySelector('.query .text')).direction") == "rtl"
    assert page.ask("getComputedStyle(document.querySelector('.facts')).direction") == "ltr"


def test_a_megabyte_is_shown_by_pieces_and_in_the_end_whole(page):
    text = "word\u202e 😀" * 150_000
    assert len(text) > 1_000_000
    page.show(everywhere(text).to_html()).until("document.querySelector('.tree .query .more')")
    assert page.ask("document.querySelectorAll('*').length") < 60_000
    box = "document.querySelectorAll('.query .text')[0]"
    for _ in range(12):
        page.run(f"{box}.querySelector('.more')?.click()")
    assert page.ask(f"{box}.querySelector('.more')") is None
    assert page.ask("document.querySelectorAll('*').length") < 10_000
    assert page.ask(f"{box}.textContent.replace(/[⟨⟩]/g, '')") == plain(text)


def test_the_policy_stops_what_gets_in_all_the_same(page, loopback):
    server = loopback()
    page.show(everywhere("x").to_html())
    page.run(
        f"const s = document.createElement('script'); try {{ s.text = '{RUN}'; }} catch {{}} document.body.append(s);"
        "try { document.body.innerHTML = '<b>x</b>'; } catch (error) { window.refused = error.message; }"
    )
    page.run(f"fetch('{server.url}/models').then(() => {{ window.reached = 1; }}, () => {{ window.reached = 0; }})")
    page.until("window.reached !== undefined")
    assert page.ask("window.ran") is None and page.ask("window.reached") == 0
    assert "TrustedHTML" in page.ask("window.refused") and server.requests == []
    assert any("Content Security Policy" in line or "violates" in line for line in page.console())


def test_a_page_served_over_http_draws_as_well_and_asks_for_nothing(page, tmp_path):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    (tmp_path / "page.html").write_text(everywhere("x").to_html(), encoding="utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        page.driver.get(f"http://127.0.0.1:{server.server_port}/page.html")
        page.until("document.querySelectorAll('.node').length === 3")
        assert set(asked) == {"/page.html"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
