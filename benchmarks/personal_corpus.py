"""A written corpus for redaction: messages as people write them, with what must go marked as <KIND|value>.

Fictional people; numbers that no network gives out (555-01xx, Ofcom's and ARCEP's ranges for drama) or that standards
give as examples (RFC 5737 and 3849 addresses, ISO 13616 and card networks' test numbers); numbers of states that their
offices print as examples or that were made up to pass the check.
"""

from __future__ import annotations

import re

_MARK = re.compile(r"<([A-Z_]+)\|([^<>]*)>")

MARKED = """
Hi, please send the invoice to <EMAIL|ann.smith@example.com> and not to the old address.
My e-mail is <EMAIL|o'brien+shop@mail.example.co.uk>, thanks!
Kontakt: <EMAIL|jürgen.müller@beispiel.de>, Betreff egal.
escribe a <EMAIL|maria_lopez99@ejemplo.es> por favor
cc <EMAIL|a.b@x.example.org>; <EMAIL|c.d@x.example.org>
From: "Bob" <EMAIL|bob@mail.example.net>
reply-to=<EMAIL|no.reply-17@sub.domain.example.com>
I wrote to support@ but also to <EMAIL|first.last@company.example>, nobody answered.
Her address (<EMAIL|zoe@example.fr>) bounces since Monday.
Please call me back on <PHONE|+1 202-555-0143> after six.
My number is <PHONE|(212) 555-0187> if that helps.
call <PHONE|415-555-0132> any time
Tel: <PHONE|020 7946 0958>
Ring me on <PHONE|+44 20 7946 0018>, ask for Kim.
Meine Nummer ist <PHONE|+49 30 23125 555>, danke.
Handy: <PHONE|0170 1234567>
vous pouvez m'appeler au <PHONE|01 99 00 12 34>
mon portable : <PHONE|+33 6 39 98 12 34>
WhatsApp <PHONE|+91 98765 43210>
text me at <PHONE|303.555.0164>
fax number: <PHONE|+39 06 555 0199>
llámame al <PHONE|+34 612 345 678>
My card <CARD|4111 1111 1111 1111> was charged twice.
card number <CARD|5555555555554444>, expires soon
I paid with amex <CARD|378282246310005> on Tuesday
MC <CARD|5105-1051-0510-5100> is declined
The visa ending... well, it is <CARD|4012 8888 8888 1881>.
Refund to <CARD|6011111111111117> please
Bitte auf <IBAN|DE89 3704 0044 0532 0130 00> überweisen.
IBAN <IBAN|GB82 WEST 1234 5698 7654 32>
my account: <IBAN|FR1420041010050500013M02606>
<IBAN|NL91ABNA0417164300> is where the deposit should go
conto <IBAN|IT60 X054 2811 1010 0000 0123 456>
send it to <IBAN|CH93 0076 2011 6238 5295 7>, reference 17
Our office is at <IP|203.0.113.42> and cannot connect.
login from <IP|198.51.100.7>:443 was not me
allow <IP|192.0.2.150>/32 please
host <IP|2001:db8:85a3::8a2e:370:7334> times out
the router answers on <IP|192.168.178.1>
ping <IP|203.0.113.9> works, ping <IP|203.0.113.10> does not
aws_access_key_id = <SECRET|AKIAIOSFODNN7EXAMPLE>
use <SECRET|ghp_aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789> for the repo
export OPENAI_API_KEY=<SECRET|sk-proj-abc123DEF456ghi789JKL012mno345>
password: <SECRET|Tr0ub4dor&3>
my password is <SECRET|correct-Horse7>
api_key="<SECRET|9f8e7d6c5b4a39281706f5e4d3c2b1a0>"
Authorization: Bearer <SECRET|eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl>
DATABASE_URL=postgres://bob:<SECRET|hunter22>@db.internal/main
slack token <SECRET|xoxb-123456789012-abcdefghijkl>
client_secret: <SECRET|8Q~xYz0123456789abcdefABCDEF>
hf token is <SECRET|hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345>
pwd=<SECRET|s3cr3t!pass>
Passwort: <SECRET|Geheim2026!>
stripe key <SECRET|sk_live_4eC39HqLyjWDarjtT1zdp7dc>
I am <EMAIL|kim@example.com>, my phone is <PHONE|+1 646 555 0175> and the card <CARD|4242 4242 4242 4242> fails.
{"email": "<EMAIL|json@example.com>", "ip": "<IP|203.0.113.77>", "note": "call <PHONE|+44 7700 900123>"}
my SSN is <NATIONAL_ID|123-45-6789>, can you update it?
They have 1990-05-17 as my birthday and <NATIONAL_ID|536-90-4399> as the number on file.
social security number <NATIONAL_ID|536904399>
My ITIN: <NATIONAL_ID|912-70-1234>
driver's license <NATIONAL_ID|D1234567> (California), expired in May
passport number is <NATIONAL_ID|533380006>, issued in Boston
My passport no. <NATIONAL_ID|X12345678> was stolen.
NHS number: <NATIONAL_ID|943 476 5919>
the NHS letter for my mother, <NATIONAL_ID|943 476 5919>, never came
National Insurance number <NATIONAL_ID|AB123456C>
NI is <NATIONAL_ID|JG 10 37 59 A>
driving licence <NATIONAL_ID|MORGA657054SM9IJ> is lost
Meine Steuer-ID lautet <NATIONAL_ID|86 095 742 719>.
Steueridentifikationsnummer <NATIONAL_ID|65929970489>, bitte eintragen
Reisepass <NATIONAL_ID|C01X00T47> ist abgelaufen
Personalausweis Nr. <NATIONAL_ID|T220001293>
Mi DNI es <NATIONAL_ID|12345678Z>, gracias
el titular con NIF <NATIONAL_ID|54362315-K> no puede entrar
NIE <NATIONAL_ID|X1234567L>
numero di pasaporte: <NATIONAL_ID|AAA123456>
codice fiscale <NATIONAL_ID|RSSMRA85T10A562S>
il cliente <NATIONAL_ID|BNCLRA90A41F205I> attende
passaporto <NATIONAL_ID|YA1234567>
patente di guida: <NATIONAL_ID|U1H123456A>
PESEL <NATIONAL_ID|44051401359>
PESEL klienta to <NATIONAL_ID|02070803628>, prosze poprawic
henkilötunnus <NATIONAL_ID|131052-308T>
asiakas <NATIONAL_ID|010190-9112> ei pääse sisään
mon numéro de sécurité sociale est <NATIONAL_ID|1 85 05 78 006 084 91>
assurée <NATIONAL_ID|185057800608491>, dossier incomplet
Aadhaar <NATIONAL_ID|2341 2341 2346>
my PAN is <NATIONAL_ID|ABCPE1234F>
TFN: <NATIONAL_ID|123 456 782>
Medicare number <NATIONAL_ID|2123 45670 1>
my NRIC <NATIONAL_ID|S1234567D> is on the form
tenant with NRIC <NATIONAL_ID|T0123456G> moved out
SIN <NATIONAL_ID|046 454 286>
CPF do cliente: <NATIONAL_ID|529.982.247-25>
BSN <NATIONAL_ID|111222333>
personnummer <NATIONAL_ID|811218-9876>
| name | mail |\t| Ann | <EMAIL|ann@table.example> |
""".strip("\n").splitlines()
"""One message a line."""

CLEAN = """
Order 20241122-3344 shipped on 2024-11-22 at 10:30:15.
Invoice 4111 1111 1111 1112 does not add up.
Version 1.2.3.4.5 of the firmware is broken.
I forgot my password and the reset link is broken.
The token is invalid, my password was wrong, try again.
The price went from 1,200,000 to 2,500,000 within 12 months.
std::vector<int> and a::b are C++.
ticket 123456789 is still open since 03/04/2025
at 12:30 or 12:45, room 3.14, floor 2
@everyone look at user@localhost
DE00 1234 5678 9012 3456 78 is not accepted
{"priority": 2, "category": "billing", "seconds": 86400}
localhost is 127.0.0.1 and any address is 0.0.0.0
The secret: patience.
0.123456789 is a probability; 1700000000 is a time in seconds
My parcel 1Z999AA10123456784 has not arrived.
ISBN 978-3-16-148410-0 is out of stock.
Chapter 10.2.3 says pages 100-250, table 7.
2 + 2 = 4, and 17 * 23 = 391.
The meeting is on 12.10.2025 from 14.00 to 15.30.
Please set the temperature to 21.5 and the humidity to 45.
The ratio is 16:9, the score 3:2, the time 10:15:30.
Room 212, building 5, seat 18A.
My flight LH 1234 leaves at 6:45.
Error 0x80070057 in module kernel32.dll at 0x7ffe1234
uuid 123e4567-e89b-12d3-a456-426614174000
commit 444dd0d and commit 2eac49c0b1
Model X100-2000-30 with serial A1B2C3D4
Please reset my account, I cannot log in any more.
What does "bearer of bad news" mean?
basic authentication is not supported here
The key to success is practice; the key is under the mat.
tokens: 512, max_tokens=256, temperature: 0.7
secret santa is on Friday
It took 1h 20min 30s and cost 12,50 euros.
see section 4.1.2 and figure 3.10
The range is 10.0.0.x, I think.
a@b is not an address
Call it what you want, 100 of 100 agree.
I have 2 cats, 3 dogs and 15 fish.
Meine Kundennummer ist 4711, danke.
Die Rechnung vom 03.05.2025 beträgt 119,00 Euro.
La factura número 2025/000123 no es correcta.
Le colis est arrivé le 14 juillet à 18 h 30.
The phone is broken, call quality is bad.
The IP camera does not work.
My email does not arrive.
Order 123-456-78 and order 1234-56-7890 were mixed up.
The dates are 12-11-2025 and 2025-11-12, the times 10-12.
part no. 000-12-3456, lot 666-45-6789
Bestellung 12345678A, Artikel 87654321B, Charge X7654321C
Artikel 12345678Z and SKU S1234567D are sold out
NHS 2019/20, tax file 2024-2025, passport rules of 2023-2024
SIN(3.14159) is near 0, TIN 10.1038/s41586 is a DOI, the PAN 1080x1920 is a size
SIN 1000000 and social security for 65000000 people
serial number AB123456C of the boiler
my passport expired in 2021, can I still travel on 12 May 2026?
I renewed the passport on 2025-03-11, it took 14 days and 82 euros.
the driver license page shows error 500
driver license: 3 attempts left, 15 minutes to go
social security pays 1,250 a month since 2019
The tax is 19 percent of 1234567890 dong.
tax file 2024-11-22 is missing
NHS waiting times went from 120 to 240 days
order 9434765918 and tracking 44051401358
release 111.444.777-36, build 529.982.247
using version 10.15.7 since 14 dni
article RSSMRA85T10A562X is sold out
case 131052-308A and case 320190-911X
invoice 185057800608492 of the year 1985
The Steuerbescheid 2023 says 1.234,56 Euro.
identity card reader model 2200 does not start
plate T0123456A, gate S1234567A
IBAN is missing in the form.
the card reader beeps twice
""".strip("\n").splitlines()
"""Messages with nothing to take away."""


def parsed(line: str) -> tuple[str, list[tuple[int, int, str]]]:
    """(text, marked spans) of a line of MARKED."""
    text, spans, at = "", [], 0
    for match in _MARK.finditer(line):
        text += line[at : match.start()]
        spans.append((len(text), len(text) + len(match[2]), match[1]))
        text += match[2]
        at = match.end()
    return text + line[at:], spans
