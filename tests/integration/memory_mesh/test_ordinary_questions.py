"""Ordinary questions of a newcomer about own documents, asked of the whole mesh in memory with the offline model.

Each answer must hold the fact that was asked for; where the documents do not hold it, it must say so plainly.
"""

import asyncio
import re

import pytest

from bulkhead_contracts import subjects
from bulkhead_contracts.retrieval import DocumentIngested, DocumentIngestRequested
from tests.integration.memory_mesh.test_whole import answer_of, ended, grant, mesh_in, submit

LEASE = """# Residential lease, 14 Mill Street

Landlord: Orla Byrne. Tenant: Daniel Kovacs.

## Term

The lease starts on 1 September 2024 and runs for 24 months. Either party may end it with a notice of three
months in writing.

## Rent

The monthly rent is 950 EUR and is due on the third working day of each month. Late payments carry a charge of
15 EUR per week.

## Deposit

The tenant pays a deposit of 1900 EUR before moving in. The deposit is returned within 30 days of the end of
the lease, less the cost of damage.

## Use of the flat

Pets are allowed only with the written consent of the landlord. Smoking is not permitted inside the building.
Subletting is forbidden.

## Repairs

The landlord repairs the heating, the roof and the windows. The tenant pays for small repairs up to 75 EUR each.
"""

HANDBOOK = """# Staff handbook

## Annual leave

Full-time employees have 27 days of paid holiday per calendar year. Up to 5 unused days can be carried over
until 31 March of the next year.

## Sick leave

Tell your manager before 9:30 on the first day of absence. A doctor's certificate is needed from the fourth day on.

## Parental leave

Parents receive 14 weeks of paid parental leave. The leave has to be requested at least 8 weeks before it begins.

## Working from home

Employees may work from home up to three days a week. New starters come to the office every day during their first
month.

## Expenses

Meals on business trips are paid back up to 40 EUR per day. Receipts must be handed in within 60 days.
"""

GYM = """# Riverside Gym: membership terms

## Prices

The standard membership costs 39 EUR per month. The student membership costs 25 EUR per month. A single visit
without membership costs 12 EUR.

A personal training session costs 45 EUR.

## Opening hours

The gym is open from 6:00 to 23:00 on weekdays and from 8:00 to 20:00 at weekends. The sauna closes one hour
before the gym.

## Cancellation

The minimum term is 6 months. After that you can cancel with 4 weeks' notice by email to
desk@riverside.example. A membership can be frozen for up to 3 months because of injury.

## Guests

Members may bring a guest for free on the first Sunday of each month.
"""

RECIPE = """# Lentil soup with lemon

Serves 4. Preparation takes 15 minutes, cooking takes 35 minutes.

## Ingredients

- 250 g red lentils
- 1 large onion
- 2 carrots
- 1.2 litres vegetable stock
- 1 teaspoon cumin
- juice of one lemon

## Method

Fry the chopped onion in olive oil until soft. Add the cumin and the carrots and stir for two minutes. Add the
lentils and the stock and simmer for 30 minutes. Stir in the lemon juice just before serving.

## Keeping

The soup keeps for 3 days in the fridge. It can be frozen for two months.
"""

MANUAL = """# AquaClean 300 dishwasher: user manual

## Programs

The Eco program runs at 50 degrees and takes 195 minutes. The Quick program takes 30 minutes and is meant for
lightly soiled dishes. The Intensive program runs at 70 degrees.

## Error codes

E1: the water tap is closed. Open the tap and start the program again.
E4: the filter is blocked. Remove the filter, rinse it under running water and put it back.
E7: the door is not shut properly.

## Care

Clean the filter once a month. Refill the salt when the red light is on. Do not use scouring pads on the inside.

## Warranty

The warranty lasts 2 years from the date of purchase. It does not cover damage caused by limescale.

## Technical data

The appliance uses 9.5 litres of water per cycle. The noise level is 44 dB. The power cable is 1.5 m long.
"""

MINUTES = """# Minutes of the allotment association, 12 May 2025

Present: Ruth Adler (chair), Tom Okafor (treasurer), Mei Lin, Pavel Novak.

## Water pump

The old pump failed in April. Mei Lin got two quotes. The committee decided to buy the pump from Halden for
640 EUR. Pavel Novak will install it by 7 June 2025.

## Finances

Tom Okafor reported a balance of 2315 EUR. Four members have not paid this year's fee yet; Tom will remind
them in writing.

## Summer party

The party will take place on 19 July 2025 in the main meadow. Ruth Adler books the band. No decision was taken
about fireworks.

## Next meeting

The next meeting is on 16 June 2025 at 18:30 in the club house.
"""

PRICES = """# Harbour Guesthouse: price list 2025

| Room | Price per night | Beds |
|---|---|---|
| Single | 62 EUR | 1 |
| Double | 88 EUR | 2 |
| Family | 124 EUR | 4 |

Breakfast costs 11 EUR per person. Parking costs 6 EUR per night. Check-in is from 15:00, check-out is until 10:30.

Bicycles can be rented for 14 EUR a day. Dogs are welcome for an extra 8 EUR per night.

Bookings can be cancelled free of charge until 7 days before arrival. After that we charge half of the price.
"""

NOT_HELD = ("The documents hold no answer",)

QUESTIONS = {
    "lease": (
        LEASE,
        (
            ("How much is the monthly rent?", ("950",)),
            ("When does the lease start?", ("1 September 2024",)),
            ("Am I allowed to keep a cat or another pet?", ("consent",)),
            ("What is the landlord's phone number?", NOT_HELD),
            ("Summarise the lease.", ("950", "Pets|deposit|Subletting")),
        ),
    ),
    "handbook": (
        HANDBOOK,
        (
            ("How many days of holiday do full-time employees get?", ("27",)),
            (
                "How many weeks of parental leave do parents get, and how early do I have to ask for it?",
                ("14 weeks", "8 weeks"),
            ),
            ("From which day do I need a doctor's certificate?", ("fourth day",)),
            ("Does the company pay for a company car?", NOT_HELD),
            ("What is the most I get back for meals on a business trip of 5 days?", ("200",)),
            ("How often may I work from home?", ("three days a week",)),
            ("What is the dress code?", NOT_HELD),
            (
                "How many days of paid holiday do full-time employees have, and how long is the parental leave?",
                ("27 days", "14 weeks"),
            ),
            ("Which clothes must trainees wear?", NOT_HELD),
        ),
    ),
    "gym": (
        GYM,
        (
            ("How much does the student membership cost for 6 months?", ("150",)),
            ("If I go twice a week for 6 weeks without a membership, how much do I pay?", ("144",)),
            ("When does the gym close at weekends?", ("20:00",)),
            ("Can I freeze my membership if I am injured?", ("3 months",)),
            ("Is there a swimming pool?", NOT_HELD),
            ("What do 4 personal training sessions cost?", ("180",)),
        ),
    ),
    "recipe": (
        RECIPE,
        (
            ("How many grams of lentils do I need?", ("250",)),
            ("How long does the soup keep in the fridge?", ("3 days",)),
            ("When do I add the lemon juice?", ("just before serving",)),
            ("Can I freeze the soup?", ("two months",)),
        ),
    ),
    "manual": (
        MANUAL,
        (
            ("What does error E4 mean and what should I do?", ("filter is blocked", "Remove the filter|rinse")),
            ("How long is the Eco program?", ("195 minutes",)),
            ("Is limescale damage covered by the warranty?", ("does not cover",)),
        ),
    ),
    "minutes": (
        MINUTES,
        (
            ("Who will install the pump and by when?", ("Pavel Novak", "7 June 2025")),
            (
                "How many days are there between the meeting of 12 May 2025 and the summer party on 19 July 2025?",
                ("68",),
            ),
            ("What was decided about the pump?", ("Halden|640",)),
            ("Where and when is the next meeting?", ("club house", "16 June 2025")),
        ),
    ),
    "prices": (
        PRICES,
        (
            ("What do 3 nights in a double room cost?", ("264",)),
            ("How much is breakfast for 4 people?", ("44",)),
            ("Until when can I cancel for free?", ("7 days before",)),
            ("What is 12 * 7?", ("84",)),
            ("What is 25 % of 4,350?", (r"1087\.5",)),
            ("What does it cost to rent two bicycles for 3 days?", ("84",)),
        ),
    ),
}
"""Documents by their name: the text, and questions with patterns that must all stand in the answer."""


@pytest.mark.parametrize("name", QUESTIONS)
async def test_an_ordinary_question_gets_the_fact_that_it_asks_for(tmp_path, name):
    document, asked = QUESTIONS[name]
    async with mesh_in(tmp_path) as mesh:
        await _ingest(mesh, {name: document})
        tasks = {f"t{number}": question for number, (question, _) in enumerate(asked)}
        await asyncio.gather(*(submit(mesh, question, task) for task, question in tasks.items()))
        answers = [await _answer(mesh, task) for task in tasks]
    wrong = []
    for (question, wanted), answer in zip(asked, answers, strict=True):
        said_nothing = NOT_HELD[0] in answer and wanted != NOT_HELD
        if said_nothing or not all(re.search(pattern, answer) for pattern in wanted):
            wrong.append(f"{question}\n{answer}")
    assert not wrong, "\n\n".join(wrong)


async def test_of_many_questions_at_once_none_is_lost(tmp_path):
    """More than a plan of the offline model has steps, over all documents together."""
    everything = [one for _, asked in QUESTIONS.values() for one in asked if not one[0].startswith("Summarise")]
    async with mesh_in(tmp_path) as mesh:
        await _ingest(mesh, {name: document for name, (document, _) in QUESTIONS.items()})
        await submit(mesh, "\n".join(f"{number}. {question}" for number, (question, _) in enumerate(everything, 1)))
        answer = await _answer(mesh, "t1")
    lost = [question for question, wanted in everything if not all(re.search(one, answer) for one in wanted)]
    assert not lost, (lost, answer)


async def _ingest(mesh, documents):
    context = mesh.context("gateway")
    for name, document in documents.items():
        body = DocumentIngestRequested(
            name=f"{name}.md", media_type="text/markdown", content=await context.blobs.put("demo", document)
        )
        await context.publisher.send("rag", body, tenant="demo", task=name, cause=name, grant=grant(mesh, name))
        done = await mesh.until(subjects.mesh("rag", "gateway", "demo", name), DocumentIngested)
        assert done.outcome == "ingested", done


async def _answer(mesh, task):
    end = await ended(mesh, task)
    return await answer_of(mesh, end) if end.status == "succeeded" else f"{end.status}: {end.failure}"
