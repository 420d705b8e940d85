import asyncio
import socket

from urban_reid.console.listening import listen


def test_an_answer_in_two_parts_is_sent_at_once() -> None:
    """Not once the receipt of the first part is in, which a browser sends after 40 ms."""

    async def serve(listening: socket.socket) -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(answer, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            is_sent_at_once = await found
            writer.close()
            await writer.wait_closed()
            return is_sent_at_once

    with listen(0) as listening:
        assert asyncio.run(serve(listening))
