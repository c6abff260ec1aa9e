"""python-telegram-bot, used as its documentation says; only its base addresses are set."""

import asyncio
import json
import sys

from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, InputMediaPhoto, Update
from telegram.error import RetryAfter, TelegramError
from telegram.ext import ApplicationBuilder, CallbackQueryHandler, CommandHandler


def bot(given, token=""):
    return Bot(token or given["bot_token"], base_url=given["url"] + "/bot", base_file_url=given["url"] + "/file/bot")


async def caught(call):
    """What the error says."""
    try:
        await call
    except RetryAfter as error:
        return ["RetryAfter", error.retry_after]
    except TelegramError as error:
        return [type(error).__name__, error.message]
    return None


async def calls(given):
    buttons = InlineKeyboardMarkup([[InlineKeyboardButton("Pay", callback_data="pay:order-1")]])
    async with bot(given) as telegram:
        sent = await telegram.send_message(1, "<b>Hi</b> Ann", parse_mode="HTML", reply_markup=buttons)
        document = await telegram.send_document(2, b"an invoice", filename="invoice.txt", caption="c")
        file = await telegram.get_file(document.document.file_id)
        photo = await telegram.send_photo(3, b"\x89PNG\r\n\x1a\n")
        album = await telegram.send_media_group(-4, [InputMediaPhoto(b"1"), InputMediaPhoto(b"2")])
        forwarded = await telegram.forward_message(5, 2, document.message_id)
        return {
            "me": [telegram.username, telegram.can_join_groups],
            "sent": [sent.text, [[one.type, one.offset, one.length] for one in sent.entities]],
            "again": await caught(telegram.send_message(1, "again")),
            "file": (await file.download_as_bytearray()).decode(),
            "photo": photo.photo[-1].file_size,
            "by_id": (await telegram.send_document(6, document.document.file_id)).document.file_name,
            "album": len({one.media_group_id for one in album}),
            "forwarded": forwarded.forward_origin.type,
            "copied": (await telegram.copy_message(7, 2, document.message_id)).message_id,
            "edited": (await telegram.edit_message_text("new", chat_id=1, message_id=sent.message_id)).text,
            "not_modified": await caught(telegram.edit_message_text("new", chat_id=1, message_id=sent.message_id)),
            "reserved": await caught(telegram.send_message(8, "1.", parse_mode="MarkdownV2")),
            "empty": await caught(telegram.send_message(8, " ")),
            "deleted": await telegram.delete_message(1, sent.message_id),
            "gone": await caught(telegram.delete_message(1, sent.message_id)),
            "chat": (await telegram.get_chat(1)).type,
            "webhook": [
                await telegram.set_webhook("https://shop.test/telegram", secret_token="s3cret"),
                (await telegram.get_webhook_info()).url,
                await caught(telegram.get_updates()),
                await telegram.delete_webhook(),
            ],
            "wrong_token": await caught(bot(given, "4711:wrong").initialize()),
        }


async def broken(given):
    """How it tells of what people and chats have done."""
    async with bot(given) as telegram:
        return [await caught(telegram.send_message(chat, "Hi")) for chat in given["chats"]]


async def application(given):
    """A bot of its framework, which polls until it has heard what it waits for."""
    heard, enough = [], asyncio.Event()

    async def start(update: Update, context):
        heard.append([update.message.text, update.effective_user.first_name])
        await update.message.reply_text("Welcome")

    async def pressed(update: Update, context):
        heard.append([update.callback_query.data, update.callback_query.message.text])
        await update.callback_query.answer()
        enough.set()

    built = ApplicationBuilder().token(given["bot_token"]).base_url(given["url"] + "/bot")
    application = built.base_file_url(given["url"] + "/file/bot").build()
    application.add_handlers([CommandHandler("start", start), CallbackQueryHandler(pressed)])
    async with application:
        await application.start()
        await application.updater.start_polling(timeout=1)
        async with asyncio.timeout(60):
            await enough.wait()
        await application.updater.stop()
        await application.stop()
    return heard


if __name__ == "__main__":
    print(json.dumps(asyncio.run(globals()[sys.argv[1]](json.load(sys.stdin)))))
