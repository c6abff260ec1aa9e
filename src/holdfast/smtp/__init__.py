"""SMTP behind one seam: the only place that knows aiosmtplib."""
