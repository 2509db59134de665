"""The seventh set, part five: loops at desks, in chats and inboxes, in searches, data bases, clusters and browsers.

In: a random generator. Out: traces. As in part four: `loop_begins` says how many rows a round has, and three periods
are over with row `start + 4 * period`, before round 5 begins.
"""

from random import Random

from tests.health_set import seventh_words as words
from tests.health_set.sets import SEVENTH
from tests.health_set.seventh_loops import rounds
from tests.health_set.seventh_words import Run, desk_work, run


# github.com/openclaw/openclaw/pull/89109, github.com/langchain-ai/langchain-community/issues/255
@SEVENTH.looping(6, "the same message is sent to the same channel again and again; each has an id of its own")
def same_message_sent(rng: Random) -> Run:
    trace, text, channel = run(rng), f"Update: {words.finding(rng)}", f"C0{words.hexa(rng, 8).upper()}"
    desk_work(trace, "assistant")
    trace.loop_begins(1)
    for _ in range(rounds(rng)):
        trace.call(
            "assistant",
            "message.send",
            {"channel": "#ops", "text": text},
            {"ok": True, "channel": channel, "ts": f"{trace.now_s:.6f}", "message_id": f"om_{words.hexa(rng, 20)}"},
        )
    return trace


# github.com/openclaw/openclaw/issues/119992
@SEVENTH.looping(5, "one question, one look at the same figures, and an answer that is sent again in other words")
def answer_sent_again(rng: Random) -> Run:
    trace, who = run(rng), rng.choice(words.GIVEN)
    desk_work(trace, "assistant", 1, 3)
    slept, steps = f"{rng.randint(5, 8)}h {rng.randrange(60)}m", rng.randrange(3000, 14000)
    forms = (
        "{w}, you slept {s} and took {n} steps.",
        "Last night: {s} of sleep. Steps so far: {n}.",
        "Here is your summary, {w}: sleep {s}, steps {n}.",
        "You took {n} steps yesterday and slept {s}.",
        "Sleep: {s}. Steps: {n}. Anything else, {w}?",
        "{n} steps and {s} of sleep, {w}, as of today.",
        "To sum up, {w}: you slept for {s}; your steps were {n}.",
        "Updated answer: {s} asleep, {n} steps.",
    )
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.call("assistant", "get_health_data", {"range": "1d"}, {"sleep": slept, "steps": steps})
        trace.call(
            "assistant",
            "message",
            {"to": who, "text": rng.choice(forms).format(w=who, s=slept, n=steps)},
            {"delivered": True, "id": rng.randrange(10**6)},
        )
    return trace


# github.com/TulipFarm/tulipfarm/issues/646
@SEVENTH.looping(5, "a word of thanks is answered by 'You're welcome', and that by itself, and so on")
def you_are_welcome(rng: Random) -> Run:
    trace = run(rng)
    desk_work(trace, "assistant", 3, 5)
    trace.say("user", "thanks", "assistant")
    trace.loop_begins(3)
    for _ in range(rng.randint(20, 30)):
        trace.say(
            "assistant",
            rng.choice(
                (
                    "You're welcome!",
                    "You're welcome.",
                    "You are welcome!",
                    "Happy to help!",
                    "You're welcome! Let me know if you need anything else.",
                )
            ),
        )
    return trace


# github.com/utsavk1993/wren/issues/49
@SEVENTH.looping(5, "whatever a caller says, the request for the phone number is repeated word for word")
def number_asked_again(rng: Random) -> Run:
    trace, asked = run(rng, untimed=0.1), "Can I have the phone number on the account, please?"
    trace.call("voice-agent", "start_call", {"line": rng.randrange(9)}, {"caller": "unknown"})
    trace.loop_begins(2)
    number = f"0{rng.randrange(100, 999)} {rng.randrange(10**5, 10**6)}"
    for _ in range(rounds(rng)):
        trace.say("voice-agent", asked, "caller", pause=4)
        trace.say(
            "caller",
            rng.choice(
                (
                    f"It's {number}.",
                    f"I just said it: {number}.",
                    "Are you listening?",
                    words.complaint(rng),
                    f"{number}, as I told you.",
                    words.complaint(rng),
                )
            ),
            "voice-agent",
            pause=6,
        )
    return trace


# github.com/anthropics/claude-code/issues/84761, github.com/strands-labs/robots/issues/1924
@SEVENTH.looping(6, "an agent takes its own answer for a new comment of the review, and answers it, hour after hour")
def own_answer_answered(rng: Random) -> Run:
    trace, number, commit = run(rng, untimed=0.15), rng.randrange(100, 3000), words.hexa(rng, 8)
    words.code_work(trace, "pr-agent", 2, 4)
    thread = [{"id": rng.randrange(10**9), "author": "user", "body": words.remark(rng)}]
    forms = (
        "Done in {c}.",
        "Took the executor route in {c}.",
        "Adopted the executor pattern in {c}. Resolving.",
        "Addressed in {c}, thanks.",
        "As proposed, {c} uses an executor.",
        "This is in {c} now.",
        "Adopted the third option in {c}.",
    )
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.call("pr-agent", "list_review_comments", {"pr": number}, list(thread), pause=rng.uniform(600, 3600))
        body = rng.choice(forms).format(c=commit) + " _Addressed by the agent_"
        thread.append({"id": rng.randrange(10**9), "author": "user", "body": body})
        trace.call(
            "pr-agent",
            "reply_to_comment",
            {"pr": number, "in_reply_to": thread[-2]["id"], "body": body},
            {"id": thread[-1]["id"], "created_at": trace.stamp()},
        )
    return trace


@SEVENTH.looping(5, "a solved ticket is opened again by the shop's own survey mail; solved again, and so on")
def survey_reopens(rng: Random) -> Run:
    trace, ticket = run(rng, untimed=0.15), words.ticket(rng)
    desk_work(trace, "support", 2, 4)
    trace.loop_begins(3)
    for _ in range(rounds(rng)):
        trace.call("support", "set_status", {"ticket": ticket, "status": "solved"}, {"ok": True, "at": trace.stamp()})
        trace.call(
            "csat-bot",
            "add_comment",
            {"ticket": ticket, "public": True, "body": "How did we do? Please rate this conversation."},
            {"comment": rng.randrange(10**9), "ticket_status": "open"},
            pause=rng.uniform(30, 90),
        )
        trace.call("support", "get_ticket", {"id": ticket}, {"id": ticket, "status": "open", "updated": trace.stamp()})
    return trace


@SEVENTH.looping(5, "the second line sends a ticket back for its logs; the first line sends it up again without them")
def back_for_the_logs(rng: Random) -> Run:
    trace, ticket = run(rng), words.ticket(rng)
    desk_work(trace, "tier1", 2, 4)
    up = (
        "Customer still cannot log in, please check.",
        "Escalating again, the customer is waiting.",
        "Please look into this, it is urgent.",
        "As discussed, passing it to you.",
        "Still broken, over to you.",
    )
    down = (
        "We need the logs of the device before we can start.",
        "No logs attached. Sending back.",
        "Please attach the logs first.",
        "Cannot work on it without logs.",
        "Logs are missing, returned to tier 1.",
    )
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.call(
            "tier1",
            "assign_ticket",
            {"ticket": ticket, "to": "tier2", "comment": rng.choice(up)},
            {"assignee": "tier2", "updated_at": trace.stamp()},
        )
        trace.call(
            "tier2",
            "assign_ticket",
            {"ticket": ticket, "to": "tier1", "comment": rng.choice(down)},
            {"assignee": "tier1", "updated_at": trace.stamp()},
        )
    return trace


# github.com/quintonmiller/tailored-ai/issues/528
@SEVENTH.looping(5, "a fact is looked for in an empty memory, again and again")
def memory_is_empty(rng: Random) -> Run:
    trace = run(rng)
    desk_work(trace, "assistant")
    trace.loop_begins(1)
    for _ in range(rounds(rng)):
        trace.call("assistant", "core_memory_view", {}, "(core memory is empty)")
    return trace


# github.com/typeclaw/typeclaw/pull/836, github.com/tinyhumansai/openhuman/pull/4658
@SEVENTH.looping(6, "nothing in memory; then grep, find, sessions, other words: thirty looks, and never anything there")
def digging_in_memory(rng: Random) -> Run:
    trace, topic = run(rng), rng.choice(words.TOPICS)
    desk_work(trace, "assistant", 1, 3)
    forms = (
        "{}",
        "{} preferences",
        "user {}",
        "notes on {}",
        "{} decision",
        "last talk about {}",
        "{} budget",
        "{} plan",
    )
    trace.loop_begins(3)
    for _ in range(rng.randint(26, 36)):
        said = rng.choice(forms).format(topic)
        match rng.randrange(4):
            case 0:
                trace.call("assistant", "memory_search", {"query": said}, {"results": []})
            case 1:
                trace.call("assistant", "bash", {"command": f"grep -ri '{said}' memory/topics/"}, "(no output)")
            case 2:
                trace.call("assistant", "bash", {"command": f"grep -rl '{said.split()[0]}' sessions/ | head"}, "")
            case _:
                trace.call("assistant", "memory_walk", {"query": said, "depth": rng.randint(1, 4)}, {"results": []})
    return trace


# github.com/openai/openai-agents-js/issues/512
@SEVENTH.looping(5, "five candidates, none of them good; fetched again, with the same words, and the same five come")
def same_candidates(rng: Random) -> Run:
    trace, site = run(rng), f"{rng.choice(words.COMPANIES).split()[0].lower()}.example"
    desk_work(trace, "finder", 1, 3)
    urls = [f"https://{site}/{rng.choice(words.PARTS)}/{rng.choice(words.DOES)}" for _ in range(5)]
    trace.loop_begins(1)
    for _ in range(rounds(rng)):
        trace.call(
            "finder",
            "google_top5",
            {"query": f"site:{site} api documentation"},
            {
                "results": [{"rank": place + 1, "url": url} for place, url in enumerate(urls)],
                "searchTime": round(rng.uniform(0.1, 0.5), 6),
            },
        )
    return trace


# github.com/langmanus/langmanus/issues/61
@SEVENTH.looping(6, "retrieve, grade as irrelevant, write the question anew, retrieve: the same passages, shuffled")
def graded_and_rewritten(rng: Random) -> Run:
    trace, topic = run(rng), rng.choice(words.TOPICS)
    desk_work(trace, "rag", 1, 2)
    found = [words.finding(rng) for _ in range(3)]
    forms = (
        "What is the deadline for {}?",
        "{} deadline",
        "By when must {} be filed?",
        "date limit {}",
        "When does {} have to be reported?",
        "{} reporting date",
        "latest date for {}",
        "time limit of {}",
        "{}: due date",
        "filing date {}",
        "What is the final date for {}?",
        "{} cut-off",
        "deadline, {}",
        "until when {}",
    )
    trace.loop_begins(3)
    for form in rng.sample(forms, rng.randint(8, len(forms))):
        asked = form.format(topic)
        trace.call(
            "rag",
            "retrieve",
            {"question": asked},
            [{"text": one, "score": round(rng.uniform(0.3, 0.6), 4)} for one in rng.sample(found, 3)],
        )
        trace.call("rag", "grade_documents", {"question": asked}, {"binary_score": "no"})
        trace.call("rag", "rewrite_question", {"question": asked}, "rewritten")
    return trace


@SEVENTH.looping(5, "a page cannot be fetched; tried from the site, an archive and a cache in turn, in vain")
def page_not_fetched(rng: Random) -> Run:
    trace, page = run(rng), f"news.example/{words.hexa(rng, 8)}"
    desk_work(trace, "researcher", 2, 4)
    trace.loop_begins(3)
    for _ in range(rounds(rng)):
        trace.call("researcher", "fetch", {"url": f"https://{page}"}, error="403 Forbidden")
        trace.call(
            "researcher",
            "fetch",
            {"url": f"https://web.archive.example/web/{page}"},
            error=f"timeout after {rng.choice((30, 30, 60))}s",
        )
        trace.call("researcher", "fetch", {"url": f"https://cache.example/?q={page}"}, error="404 Not Found")
    return trace


# github.com/langgenius/dify/issues/23187
@SEVENTH.looping(5, "the user's question is replaced by 'continue', and the first tool is called once more")
def continue_and_first_tool(rng: Random) -> Run:
    trace, city = run(rng), rng.choice(words.COMPANIES)
    answer = {"company": city, "revenue": rng.randrange(10**6, 10**8), "year": 2025}
    desk_work(trace, "agent-node", 1, 2)
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.say("system", "Processing the user's latest request: continue", "agent-node", pause=0.4)
        trace.call(
            "agent-node",
            "mcp_company_report",
            {"query": "continue", "company": city},
            answer | {"trace_id": words.uid(rng)},
        )
    return trace


# github.com/Mintplex-Labs/anything-llm/issues/2210
@SEVENTH.looping(6, "which data bases are there, which tables; none in 'public'; which data bases are there")
def databases_and_tables(rng: Random) -> Run:
    trace = run(rng)
    trace.call("agent", "get_question", {}, words.complaint(rng))
    trace.loop_begins(3)
    for _ in range(rounds(rng)):
        trace.say("agent", "Checking what are the available databases.")
        trace.call("agent", "sql-list-databases", {}, [{"database_id": "RAGTest", "engine": "postgresql"}])
        trace.call("agent", "sql-list-tables", {"database_id": "RAGTest"}, [])
    return trace


# github.com/langchain-ai/langchain/issues/9167
@SEVENTH.looping(5, "a checker of queries gives back the query that it was given; the data base refuses it as before")
def checker_changes_nothing(rng: Random) -> Run:
    trace, table = run(rng), rng.choice(words.TABLES)
    query = f"SELECT {rng.choice(words.PARTS)}, COUNT(*) FROM {table} GROUP BY 1 ORDER BY 2 DESC LIMIT 10"
    trace.call("sql-agent", "sql_db_list_tables", {}, ", ".join(sorted(words.some(rng, words.TABLES, 5, 8))))
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.call("sql-agent", "sql_db_query_checker", {"query": query}, f"```sql\n{query};\n```")
        trace.call(
            "sql-agent",
            "sql_db_query",
            {"query": f"{query};"},
            f'Error: (psycopg2.errors.UndefinedTable) relation "{table}" does not exist\nLINE 1: ... '
            f"(Background on this error at: https://sqlalche.me/e/20/f405)",
        )
    return trace


@SEVENTH.looping(6, "a failed task of a pipeline is cleared, waited for, its log read: it fails as before; cleared")
def task_cleared_again(rng: Random) -> Run:
    trace, dag = run(rng, untimed=0.15), f"daily_{rng.choice(words.TABLES)}"
    desk_work(trace, "pipeline-agent", 1, 2)
    trace.loop_begins(3)
    for number in range(rounds(rng)):
        trace.call("pipeline-agent", "clear_task", {"dag": dag, "task": "load"}, {"cleared": 1, "try": number + 2})
        trace.call(
            "pipeline-agent",
            "get_task_state",
            {"dag": dag, "task": "load"},
            {"state": "failed", "try": number + 2, "end": trace.stamp()},
            pause=rng.uniform(60, 300),
        )
        trace.call(
            "pipeline-agent",
            "get_log",
            {"dag": dag, "task": "load", "try": number + 2},
            f"[{trace.stamp()}] ERROR - snowflake.connector.errors.ProgrammingError: 002003: Object "
            f"'RAW.{dag.upper()}' does not exist or not authorized.",
        )
    return trace


@SEVENTH.looping(5, "duplicates are merged, the sync makes them again, they are found and merged")
def duplicates_return(rng: Random) -> Run:
    trace, firm = run(rng, untimed=0.15), rng.choice(words.COMPANIES)
    kept = f"001{words.hexa(rng, 12)}"
    desk_work(trace, "crm-agent", 1, 3)
    trace.loop_begins(3)
    for _ in range(rounds(rng)):
        other = f"001{words.hexa(rng, 12)}"
        trace.call("crm-agent", "find_duplicates", {"object": "Account", "name": firm}, {"pairs": [[kept, other]]})
        trace.call("crm-agent", "merge", {"keep": kept, "merge": other}, {"success": True})
        trace.call(
            "erp-sync",
            "upsert_account",
            {"name": firm, "external": "ERP-" + kept[-4:]},
            {"created": True, "at": trace.stamp()},
            pause=rng.uniform(60, 400),
        )
    return trace


# sweeps of crash loops: github.com/mitchross/talos-argocd-proxmox/pull/1847
@SEVENTH.looping(6, "a pod crashes at start; its log is read, the pod deleted, the next one crashes in the same way")
def pod_deleted_again(rng: Random) -> Run:
    trace, app = run(rng), rng.choice(words.SERVERS)
    start = f"{app}-{words.hexa(rng, 10)}"
    desk_work(trace, "sre", 1, 2)
    trace.loop_begins(3)
    for _ in range(rounds(rng)):
        pod = f"{start}-{words.hexa(rng, 5)}"
        trace.call(
            "sre",
            "kubectl",
            {"args": f"get pods -l app={app}"},
            f"{pod} 0/1 CrashLoopBackOff {rng.randint(2, 4)} ({rng.randint(5, 55)}s ago) {rng.randint(60, 90)}s",
            pause=rng.uniform(20, 70),
        )
        trace.call(
            "sre",
            "kubectl",
            {"args": f"logs {pod} --tail=20"},
            f"{trace.stamp()} panic: DATABASE_URL is not set\ngoroutine 1 [running]:\nmain.main()",
        )
        trace.call("sre", "kubectl", {"args": f"delete pod {pod}"}, f'pod "{pod}" deleted')
    return trace


@SEVENTH.looping(5, "a patch by hand is put back by the sync of the cluster; seen, patched again, put back")
def sync_puts_back(rng: Random) -> Run:
    trace, app, rev = run(rng), rng.choice(words.SERVERS), words.hexa(rng, 7)
    desk_work(trace, "sre", 1, 2)
    trace.loop_begins(3)
    for _ in range(rounds(rng)):
        trace.call(
            "sre",
            "kubectl",
            {"args": f"set resources deploy/{app} --limits=memory=1Gi"},
            f"deployment.apps/{app} resource requirements updated",
        )
        trace.call(
            "argocd",
            "sync",
            {"app": app},
            {"phase": "Succeeded", "revision": rev, "finishedAt": trace.stamp()},
            pause=rng.uniform(20, 180),
        )
        trace.call("sre", "kubectl", {"args": f"get deploy {app} -o jsonpath={{..limits.memory}}"}, "512Mi")
    return trace


@SEVENTH.looping(5, "rights are missing: who am I, attach a policy, denied, try the call, denied, who am I")
def rights_are_missing(rng: Random) -> Run:
    trace, account = run(rng), rng.randrange(10**11, 10**12)
    arn = f"arn:aws:sts::{account}:assumed-role/agent/session"
    desk_work(trace, "cloud-agent", 1, 2)
    trace.loop_begins(3)
    for _ in range(rounds(rng)):
        trace.call("cloud-agent", "aws", {"cmd": "sts get-caller-identity"}, {"Account": str(account), "Arn": arn})
        for cmd, what in (
            ("iam attach-role-policy --role-name agent --policy-arn AmazonS3FullAccess", "AttachRolePolicy"),
            ("s3 mb s3://agent-artifacts", "CreateBucket"),
        ):
            trace.call(
                "cloud-agent",
                "aws",
                {"cmd": cmd},
                error=(
                    f"An error occurred (AccessDenied) when calling the {what} operation: {arn} is not authorized "
                    f"(RequestId: {words.hexa(rng, 16).upper()})"
                ),
            )
    return trace
