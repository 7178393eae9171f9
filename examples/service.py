"""A web service that streams answers to a browser by server-sent events.

pip install starlette uvicorn && python examples/service.py, then open http://127.0.0.1:8000
"""

import json
from collections.abc import AsyncIterator

import uvicorn
from example_model import example_model
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route

from streamfold.errors import StreamfoldError

PAGE = """<!doctype html><meta charset="utf-8"><title>streamfold</title>
<form><input name="q" value="Why do parrots talk?" size="40"> <button>Ask</button></form><p></p>
<script>
document.forms[0].onsubmit = submit => {
  submit.preventDefault();
  const answer = document.querySelector("p"), asked = new FormData(submit.target);
  answer.textContent = "";
  const events = new EventSource("/answer?" + new URLSearchParams(asked));
  events.onmessage = event => answer.textContent += JSON.parse(event.data);
  events.onerror = () => events.close();
};
</script>"""

model = example_model()


async def answer(question: str) -> AsyncIterator[str]:
    try:  # a browser that leaves cancels this, and with it the provider's stream
        async with model.astream(question) as chunks:
            async for chunk in chunks:
                yield f"data: {json.dumps(chunk.text)}\n\n"
    except StreamfoldError as error:
        yield f"data: {json.dumps(f' [{error}]')}\n\n"


async def stream(request: Request) -> StreamingResponse:
    return StreamingResponse(answer(request.query_params["q"]), media_type="text/event-stream")


app = Starlette(routes=[Route("/", lambda _: HTMLResponse(PAGE)), Route("/answer", stream)])

if __name__ == "__main__":
    uvicorn.run(app, port=8000)
