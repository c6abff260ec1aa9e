"""A tele-consultation shop: paid by Swiss Bitcoin Pay or Lightning, held on Zoom or Jitsi, told by chat or e-mail."""
