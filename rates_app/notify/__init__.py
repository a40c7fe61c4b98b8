"""Send notifications to e-mail, chat, pagers and ticket systems, with retries and dead letters."""
