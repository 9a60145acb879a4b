"""HTTP/1.1 on one connection: `asyncio.Protocol`, requests in and answers out, in order.

Rules:

1. A plain `Response` is written inside the parser's callback, head and body in one `transport.write`: no task and no
   await per request. An awaitable makes later requests of the same connection wait.
2. Nothing grows without a bound. While answers wait, or the client does not read them, the socket is not read.
3. Where the application's answers wait for a commit (`outbox`), nothing is written around it, and what one connection
   may have waiting there is bounded like everything else.
4. Every phase has a deadline, enforced by the server's one-second sweep (`expire`).
5. An answer of the server's own (400, 408, 413, ...) ends the connection, without a reset that would destroy it.
6. An awaited answer is told when its client may be gone (`Request.is_gone`): at once when the connection is lost. A
   client that ended looks like one that only closed its side and reads on; after a second it is taken for the former.

It refuses to speak HTTP/2 and to switch protocols. What a request may look like is decided in `reader`.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable
from typing import cast

from ringfence_agent.http.listening import find_peer
from ringfence_agent.http.reader import HEAD, IDLE, SLICE_BYTES, RefusedRequestError, RequestReader
from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Response
from ringfence_agent.http.service import HttpService
from ringfence_agent.promise import Promise

_WRITE_BUFFER_BYTES = 256 * 1024
# After an early answer the client may still be sending: closing at once would reset the connection and destroy the
# answer on its way (RFC 9112 9.6). Read and drop for this long instead.
_LINGER_S = 2.0
# A client reuses a connection up to the last moment it was promised; close a little later than that.
_IDLE_GRACE_S = 1.0
_HALF_CLOSED_S = 1.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CONTENT_LENGTH = b"Content-Length: "


class HttpProtocol(asyncio.Protocol):
    """One connection. See the module's rules."""

    __slots__ = (
        "_answered",
        "_awaited",
        "_blocked",
        "_eof",
        "_held_answers",
        "_held_bytes",
        "_held_input",
        "_input_closed",
        "_lingering",
        "_pending",
        "_queue",
        "_reader",
        "_reading_paused",
        "_service",
        "_since",
        "_transport",
        "_write_paused",
    )

    def __init__(self, service: HttpService) -> None:
        self._service = service
        self._transport: asyncio.Transport | None = None
        # What was read and cannot be answered yet: requests and refusals in order, then input not even parsed.
        self._queue: deque[Request | Response] = deque()
        self._held_input = b""
        # Answers wait (`_blocked`) for an awaitable (`_pending`), for the client to read (`_write_paused`), or because
        # the outbox holds many bytes for this connection.
        self._blocked = False
        self._pending = False
        self._awaited: Request | None = None
        self._write_paused = False
        self._held_answers = 0
        self._held_bytes = 0
        self._reading_paused = False
        # No further request will be taken: the client said so, or was refused, or is being let go.
        self._input_closed = False
        self._answered = False
        self._eof = False
        self._lingering = False
        # Since when the connection is in its present state, by the service's coarse clock.
        self._since = 0.0

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        service = self._service
        self._since = service.now
        service.connections[self] = None
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        peer = find_peer(self._transport)
        self._reader = RequestReader(service, peer or Peer(None), self._take)
        if peer is None:
            # The client is gone already; without knowing who it is nothing is answered.
            self._input_closed = True
            self.abort()
        elif not service.make_room():
            self._end_input(service.error_response(503, "too many connections are open; try again"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._service.connections.pop(self, None)
        self._reader.close()
        self._transport = None
        self._input_closed = True
        self._queue.clear()
        self._held_input = b""
        if self._awaited is not None:
            self._awaited.tell_gone()

    def data_received(self, data: bytes) -> None:
        if self._input_closed:
            return
        if self._reading_paused:
            # A read that was under way when reading was paused.
            self._held_input += data
        elif len(data) <= SLICE_BYTES:
            self._feed(data)
        else:
            self._feed_slices(data)

    def eof_received(self) -> bool:
        """A half-closed client still gets the answers it asked for."""
        self._eof = True
        self._since = self._service.now
        if self._held_answers and self._service.outbox is not None:
            self._service.outbox.flush()
        return self._pending or self._held_answers > 0 or bool(self._queue) or bool(self._held_input)

    def pause_writing(self) -> None:
        self._write_paused = self._blocked = True
        self._since = self._service.now

    def resume_writing(self) -> None:
        self._write_paused = False
        self._set_blocked()
        self._proceed()

    def _set_blocked(self) -> None:
        self._blocked = self._pending or self._write_paused or self._held_bytes > _WRITE_BUFFER_BYTES

    # -- reading

    def _feed_slices(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE_BYTES):
            if self._input_closed:
                return
            if self._blocked and self._queue:
                self._pause_reading(data[start:])
                return
            self._feed(data[start : start + SLICE_BYTES])

    def _feed(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except RefusedRequestError as refused:
            # Bytes behind a request that closes the connection have nobody waiting for an answer to them.
            if not self._input_closed:
                self._end_input(self._service.error_response(refused.status, refused.sentence))
            return
        except Exception as error:  # noqa: BLE001 - the edge: a bug in a callback costs this connection, not the worker
            self._end_input(self._service.failure_response(error))
            return
        if self._reader.continue_due:
            self._send_continue()
        if self._blocked and self._queue:
            self._pause_reading(b"")

    def _pause_reading(self, held: bytes) -> None:
        self._held_input += held
        if not self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def _take(self, request: Request) -> None:
        """Called by the reader for each whole request."""
        if self._input_closed:
            return  # pipelined behind a request that ended the connection
        if not request.keep_alive:
            self._input_closed = True
        self._since = self._service.now
        if self._blocked:
            self._queue.append(request)
        else:
            self._answer(request)

    # -- answering

    def _answer(self, request: Request) -> None:
        replaceable = True
        try:
            answer = self._service.application(request)
        except Exception as error:  # noqa: BLE001 - the edge: an exception of the application becomes a bland 500
            answer, replaceable = self._service.failure_response(error), False
        if isinstance(answer, Response):
            self._send(answer, request.keep_alive, request.method == b"HEAD", replaceable)
            return
        self._pending = self._blocked = True
        self._awaited = request
        if isinstance(answer, Promise):
            self._service.awaited.add(answer)
            answer.listen(functools.partial(self._take_outcome, request, answer))
            return
        task = asyncio.get_running_loop().create_task(self._answer_later(request, answer))
        self._service.awaited.add(task)
        task.add_done_callback(self._forget_task)

    def _forget_task(self, task: asyncio.Task[None]) -> None:
        self._service.awaited.discard(task)
        if task.cancelled():
            self.abort()
            return
        error = task.exception()
        if error is not None:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        """What was answered could not even be written: nothing sensible is left to say on this connection."""
        self._service.report_bug(error)
        self.abort()

    async def _answer_later(self, request: Request, answer: Awaitable[Response]) -> None:
        outcome: Response | Exception
        try:
            outcome = await answer
        except Exception as error:  # noqa: BLE001 - as in _answer
            outcome = error
        self._end_pending(request, outcome)

    def _take_outcome(self, request: Request, answer: Promise[Response], outcome: Response | Exception) -> None:
        """Called when a promise is kept."""
        self._service.awaited.discard(answer)
        try:
            self._end_pending(request, outcome)
        except Exception as error:  # noqa: BLE001 - the edge: a bad answer must not take the others of its turn with it
            self._give_up(error)

    def _end_pending(self, request: Request, outcome: Response | Exception) -> None:
        """Sends what was awaited, and takes up what waited behind it."""
        failed = isinstance(outcome, Exception)
        response = self._service.failure_response(outcome) if isinstance(outcome, Exception) else outcome
        self._pending = False
        self._awaited = None
        self._set_blocked()
        self._since = self._service.now
        self._send(response, request.keep_alive, request.method == b"HEAD", replaceable=not failed)
        self._proceed()

    def _send(self, response: Response, keep_alive: bool, to_head: bool, replaceable: bool) -> None:
        """Writes an answer, or has it held; decides whether another request is taken after it."""
        service = self._service
        keep_alive = keep_alive and not response.close and not service.draining
        if not keep_alive:
            self._end_requests()
        outbox = service.outbox
        if outbox is None:
            self._write(response, keep_alive, to_head)
            return
        # Even when the client is gone: what was done for it has to come on record.
        self._held_answers += 1
        self._held_bytes += len(response.body)
        if self._held_bytes > _WRITE_BUFFER_BYTES:
            self._blocked = True
        outbox.hold(self, response, keep_alive, to_head, replaceable)

    def write_held(self, response: Response, keep_alive: bool, to_head: bool) -> None:
        """Called by the outbox: what the answer says is on record."""
        self._held_answers -= 1
        self._write(response, keep_alive, to_head)
        if self._held_answers == 0:
            self._held_bytes = 0
            self._set_blocked()
            self._proceed()

    def _write(self, response: Response, keep_alive: bool, to_head: bool) -> None:
        transport = self._transport
        if transport is None:
            return
        self._answered = True
        head = response.head
        body = response.body
        tail = self._service.keep_alive_tail if keep_alive else self._service.close_tail
        if head.has_content:
            transport.write(b"%b%b%d\r\n\r\n%b" % (head.rendered, tail, len(body), b"" if to_head else body))
        else:
            transport.write(b"%b%b\r\n" % (head.rendered, tail.removesuffix(_CONTENT_LENGTH)))
        if response.on_written is not None and not transport.is_closing():
            response.on_written()
        if not keep_alive:
            self._close_after_answer()

    def _send_continue(self) -> None:
        """Invites the body, once every earlier answer of the connection is on its way."""
        waiting = self._blocked or self._held_answers or self._queue or self._input_closed
        if not waiting and self._transport is not None:
            self._reader.continue_due = False
            self._transport.write(_CONTINUE)

    def _proceed(self) -> None:
        """Takes up what waited, once an awaited answer is sent or the client reads again."""
        while not self._blocked and self._transport is not None:
            if self._queue:
                waiting = self._queue.popleft()
                if isinstance(waiting, Response):
                    self._send(waiting, keep_alive=False, to_head=False, replaceable=False)
                else:
                    self._answer(waiting)
            elif self._held_input and not self._input_closed:
                data, self._held_input = self._held_input, b""
                self._feed_slices(data)
            else:
                break
        if self._blocked or self._transport is None or self._transport.is_closing():
            return
        if self._reader.continue_due:
            self._send_continue()
        if self._eof:
            if not self._held_answers:
                self._transport.close()
        elif self._reading_paused:
            self._resume_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    # -- ending

    def _end_input(self, response: Response) -> None:
        """Answers with this after all that waits, then closes; what the client still sends is dropped."""
        self._input_closed = self._lingering = True
        self._held_input = b""
        self._reader.close()
        if self._blocked:
            self._queue.append(response)
        else:
            self._send(response, keep_alive=False, to_head=False, replaceable=False)

    def _end_requests(self) -> None:
        """The answer under way is the last. Lingers after it where the client may be sending still."""
        self._lingering = self._lingering or not self._input_closed
        self._input_closed = True
        self._queue.clear()
        self._held_input = b""

    def _close_after_answer(self) -> None:
        """Closes once what was written is sent."""
        self._since = self._service.now
        transport = self._transport
        if transport is None:
            return
        if self._eof or not self._lingering or not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        self._resume_reading()

    def _close_quietly(self) -> None:
        self._input_closed = True
        self._since = self._service.now
        if self._transport is not None:
            self._transport.close()

    def expire(self, now: float) -> None:
        """Called by the server's sweep: ends what has lasted too long."""
        if self._transport is None:
            return
        limits = self._service.limits
        reader = self._reader
        age_s = now - self._since
        if self._awaited is not None and self._eof and age_s > _HALF_CLOSED_S:
            self._awaited.tell_gone()
        if (self._pending or self._held_answers) and not self._write_paused:
            return  # the application's own deadlines bound it
        if self._write_paused or self._input_closed:
            unsent = self._transport.get_write_buffer_size() > 0
            if age_s > (limits.write_timeout_s if unsent else _LINGER_S):
                self.abort()
        elif reader.phase == IDLE:
            if age_s > limits.idle_timeout_s + _IDLE_GRACE_S:
                self._close_quietly()
        elif now - reader.began > (limits.head_timeout_s if reader.phase == HEAD else limits.body_timeout_s):
            self._end_input(self._service.error_response(408, "the request took too long to arrive"))

    def retire(self, now: float, quiet_s: float) -> None:
        """While draining: closes a connection on which nothing has happened for `quiet_s`."""
        idle = self._reader.phase == IDLE and not (self._blocked or self._held_answers or self._input_closed)
        if idle and now - self._since > quiet_s:
            self._close_quietly()

    def is_closing(self) -> bool:
        """Whether the connection is on its way out."""
        return self._transport is None or self._transport.is_closing()

    def waiting_since(self) -> tuple[bool, float] | None:
        """See `Connection`. A body under way is not counted as waiting until a head would have timed out."""
        busy = self._blocked or self._held_answers or self._input_closed
        if busy or self.is_closing():
            return None
        reader = self._reader
        if reader.phase == IDLE:
            return self._answered, self._since
        patience_s = 0.0 if reader.phase == HEAD else self._service.limits.head_timeout_s
        return self._answered, reader.began + patience_s

    def let_go(self) -> None:
        """Closes a connection that waits, to make room for another."""
        self._close_quietly()

    def abort(self) -> None:
        """Closes at once; what was not sent is dropped."""
        if self._transport is not None:
            self._transport.abort()
