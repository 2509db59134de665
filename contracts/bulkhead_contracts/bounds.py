"""Every bound in one place; each has a test. Units stand last in the name."""

# Envelope and transport
MAX_MESSAGE_BYTES = 512 * 1024  # one message body on the bus
MAX_HEADER_BYTES = 16 * 1024
MAX_BLOB_BYTES = 4 * 1024 * 1024  # one content-addressed blob
STORED_OVERHEAD_BYTES = 4 * 1024  # headers that a bus adds to a stored message
MAX_STORED_MESSAGE_BYTES = MAX_MESSAGE_BYTES + MAX_HEADER_BYTES + STORED_OVERHEAD_BYTES  # of every stream but blobs
MAX_STORED_BLOB_BYTES = MAX_BLOB_BYTES + STORED_OVERHEAD_BYTES
MAX_CREDENTIAL_CHARS = 8 * 1024  # a caller's token
MAX_VOUCHER_CHARS = 1_024
MAX_VOUCHED_MS = 8 * 24 * 3600 * 1000  # a task may wait for days before it begins
MAX_GRANT_TOKEN_BYTES = 8 * 1024
PARTITIONS = 32  # partition = hash(task) mod PARTITIONS

# Text
MAX_SUMMARY_CHARS = 200
MAX_CARRIED_CHARS = 2_000  # of a content that its reference carries beside its summary
MAX_RETRIEVALS_AHEAD = 16  # of one task, of steps that have not begun
MAX_LIVE_SOURCES = 5  # of a retrieval, told live
MAX_NAME_CHARS = 64
MAX_LOGIN_WORD_CHARS = 256  # of a token, a client or the broker, in a fact about a login
MAX_MEDIA_TYPE_CHARS = 127  # of office files 71
MAX_TITLE_CHARS = 200
MAX_REASON_CHARS = 2_000
MAX_PHRASE_CHARS = 200
MAX_PHRASES = 128  # forbidden phrases or topics of a tenant's policy
MAX_OBJECTIVE_CHARS = 16 * 1024
MAX_INSTRUCTION_CHARS = 8 * 1024
MAX_ACCEPTANCE_CHARS = 2_000
MAX_ANSWER_CHARS = 64 * 1024

# Tasks and plans
MAX_PLAN_STEPS = 1_000  # as far as they fit into one message
MAX_DRAFT_STEPS = 64  # of a plan that a model makes
MAX_STEP_INPUTS = 64
MAX_PLAN_LABELS = 2 * MAX_PLAN_STEPS + 1  # of the objective, and of each step's text and call
MAX_PLAN_NOTES = 128
MAX_MAP_ITEMS = 10_000  # of the list that one step is run over
MAX_MAP_BYTES = 2 * 1024 * 1024  # of that list's JSON, and of the list of what came of its items
MAX_TASK_ITEMS = 10_000  # of all maps of one task
MAX_TASK_ITEM_BYTES = 32 * 1024 * 1024  # of the inputs of all these items, each of which is handed its own
MAX_PLAN_DRAFTS = 2  # model drafts per generation; then the objective runs as a plan of one step
MAX_PLAN_GENERATIONS = 2  # first plan + re-plans
MAX_REVIEWED_DRAFTS = 8  # of a task whose plans a person approves
MAX_STEP_ATTEMPTS = 3
MAX_MESSAGES_PER_TASK = 100_000  # of one task in one inbox: 10,000 items of an agent are 80,000 for a worker
MAX_LISTED_DOCUMENTS = 100  # in one page
MAX_LISTED_CHUNKS = 50  # of a document, in one page

# Places to run
MAX_RUNNING_TASKS = 2_000  # of the whole mesh: all of them stand in one message
MAX_WAITING_TASKS = 100_000  # of one tenant
MAX_QUEUE_WAIT_S = 7 * 24 * 3600
MAX_PLACE_HOLDERS = 16  # replicas of doors that use one place
MAX_PLACES_AT_ONCE = 256  # given by one decision
MAX_TASKS_PER_MINUTE = 1_000_000
MAX_QUOTA_WEIGHT = 1_000
MAX_BYTES_PER_DAY = 2**50  # 1 PiB

# Steps that are carried out elsewhere
MAX_DELEGATED_ROLES = 16  # of one tenant
DEFAULT_DELEGATED_STEP_MS = 600_000
MAX_STEP_KEY_CHARS = 400
MAX_STEP_WAIT_MS = 5_000  # that one request over the bus stands; by HTTP longer
MAX_STEP_TRIES = 100  # that programs outside take one attempt at a step

# Grants
MAX_CONSTRAINTS = 16  # of one grant, on values of arguments
MAX_CONSTRAINT_CHARS = 300
MAX_GRANT_FLOWS_BYTES = 1024  # that one step's plan declares: they stand in its grant, beside its task's

# Agent loop
MAX_TURNS_PER_STEP = 12  # model turns
MAX_CONVERSATION = 1_000  # references that one call of an outside agent has: of messages, or of lists of them
MAX_CONVERSATION_ROWS = 4_000  # messages that such a call has in all: older ones stand in lists
MAX_CONVERSATION_BYTES = 16 * 1024 * 1024  # of them and the options together
MAX_ACT_ARGUMENTS_CHARS = 2_000  # of a tool call that an outside agent made; of a longer one the digest
LISTED_REFERENCES = 32  # of messages, in one list that stands for them
MAX_LIST_BYTES = 4 * 1024
MAX_CALLS_PER_TURN = 8  # parallel tool calls of one turn
MAX_ADOPTED_CALLS = 64  # tool calls of one answer to an outside agent, which makes them itself
MAX_MORE_ACTS = MAX_ADOPTED_CALLS - MAX_CALLS_PER_TURN  # that it made, beside those of a usual turn
MAX_ADOPTED_ARGUMENTS_BYTES = 512 * 1024  # of one of them: a file, most often; all of them make one blob
MAX_CALLS_PER_STEP = 40
MAX_CALL_ERRORS_PER_STEP = 6  # hallucinated tools, unfit arguments
MAX_TOOLS = 64
MAX_SHOWN_TOOLS_BYTES = 48 * 1024  # names, descriptions and schemas that one step is shown
MAX_SINKS = 32  # of one tool
MAX_SENSITIVE_KINDS = 8
MAX_FLOWS = 32  # that one step's plan declares; and planned calls
MAX_RESULT_FIELDS = 32  # of a tool's result that plans are told of
MAX_SELECTORS = 4  # of one flow
MAX_SHOWN_SOURCES = 32  # documents and tools in the context of one call that are told by name
MAX_CARRIED_SOURCES = 8  # of one result, from earlier tasks; more of them are told as unknown
MAX_PLANNED_TIMES = 64  # of one planned call in its step
MAX_PLANNED_CALLS = 256  # of one tool in a step that are let through, however many people approve
MAX_ORIGINS = 8  # told of one value
MAX_ATTRIBUTED_VALUES = 128  # of one call's arguments
MAX_ATTRIBUTION_BYTES = 24 * 1024  # of one call: eight stand in one reply, beside their arguments
MAX_FINDINGS = 32  # of one ruling
MAX_PREVIEW_CHARS = 8_000
MAX_RULES_TOLD = 48  # of a tenant's policy, that one tool is told with
MAX_RULE_TEXT_CHARS = 2_000  # of one of them
MAX_TRIAL_SOURCES = 8  # texts of one policy trial
MAX_TRIAL_SOURCE_CHARS = 8_000  # of one of them
TOOL_POLICY_TIMEOUT_MS = 5_000
MAX_EVENT_CHARS = 32 * 1024  # of an event for subscribers, as JSON: two reasons of control characters fit
GRANT_SLACK_MS = 600_000  # a grant outlives its task's deadline by this, so that all can be ended in order
MAX_APPROVALS = 20  # that one task may ask people for
MAX_ARGUMENTS_BYTES = 16 * 1024
MAX_JSON_DEPTH = 32
MAX_GATE_BYTES = 256 * 1024  # of a result that a gate or branch looks at
MAX_EVIDENCE = 128
MAX_SCHEMA_BYTES = 8 * 1024
MAX_TOOL_OUTPUT_BYTES = 64 * 1024
MAX_PASSAGES = 20
MAX_QUERY_CHARS = 2_000
MAX_PARTS = 256
MAX_LABELS = 256
MAX_CITATIONS = 256
MAX_OMISSIONS = 64
MAX_CALL_DEFERRALS = 20

# Providers
MAX_REPLY_CHANGES = 16  # what was put right in one reply of a model
MAX_MODEL_ANSWER_BYTES = 1024 * 1024  # text of one answer; more is cut and said
MAX_PROVIDER_RESPONSE_BYTES = 16 * 1024 * 1024  # one HTTP response, with a stream's framing
MAX_PROVIDER_EVENT_BYTES = 2 * 1024 * 1024  # one event of a stream
MAX_PROVIDER_ERROR_BYTES = 64 * 1024  # of an error response that is read
MAX_PROVIDER_ERROR_CHARS = 300  # of it that is passed on
MAX_RETRY_AFTER_S = 24 * 3600
MAX_CACHED_ANSWERS = 4_096  # of one tenant, in the response cache
MAX_CACHED_ANSWER_BYTES = 16 * 1024  # one of its entries, without the text, which is a blob
MAX_CACHE_TTL_S = 7 * 24 * 3600  # less than ended tasks are kept for, whatever their retention

# Time
DEFAULT_TASK_DEADLINE_MS = 120_000
MAX_TASK_DEADLINE_MS = 7 * 24 * 3600 * 1000
DEFAULT_STEP_TIMEOUT_MS = 60_000
DEFAULT_APPROVAL_WAIT_MS = 24 * 3600 * 1000
DEFAULT_MODEL_CALL_TIMEOUT_MS = 60_000
DEFAULT_TOOL_TIMEOUT_MS = 10_000
MAX_TOOL_TIMEOUT_MS = 300_000  # one attempt at a call: half as long as a reservation is held
MAX_TOOL_THREADS = 64  # of a plain tool's process and all that it starts
MAX_TOOL_FILES = 256  # that one of its processes has open
RPC_TIMEOUT_MS = 2_000

# Money: integers in micro US dollars
DEFAULT_TASK_COST_USD_MICROS = 500_000
DEFAULT_TASK_TOKENS = 500_000
MAX_COST_USD_MICROS = 10**12
MAX_TOKENS = 10**10
MAX_CALLS = 10**9  # that a limit may name
MAX_WALL_MS = 366 * 24 * 3600 * 1000  # that a limit may name
UNLIMITED = 2**53  # of a ceiling in a unit that has none
MAX_LIMIT_TARGETS = 256  # of one tenant
MAX_TOP_UPS = 256  # tasks of one tenant that were topped up and may still run
MAX_ALERTS_LISTED = 32  # of one tenant, beside its limits
MAX_TOP_UP_CHANGES = 8  # of one task that are remembered
MAX_SWITCH_CHANGES = 8  # of one halt or breaker that are remembered
MAX_LIMIT_CHANGES = 64  # of one tenant: a change that is repeated after more others is made again
MAX_CHECKPOINT_ROWS = 200  # of one part: a row with all its scopes is about 2 KB
MAX_CHECKPOINT_SETTLED = 1_000  # of one part: a row is a name and a time
MAX_CHECKPOINT_PARTS = 20_000
MAX_RESERVED_TOGETHER = 64  # reservations in one fact; one with all its scopes is about 2 KB
MAX_CALLS_AHEAD = 7  # calls of a step for which money is held beside its first
MAX_ANSWERED_BEFORE = 8  # requests under one key whose answer, that nothing was done, stays known
MAX_SETTLED_IN_REPLY = 16  # settlements of one reply; further ones are messages of their own
MAX_CHANGES_LISTED = 50  # of a tenant's limits
MAX_SPEND_ROWS = 100  # by name, in one answer
MAX_WAITS_LISTED = 200  # of one tenant, in one answer
MAX_WAIT_TARGETS_LISTED = 16
MAX_WAIT_MINUTES = 180
MAX_TRIPS_LISTED = 100
MAX_CONTROL_CHANGES = 50  # halts, lifts and resets of one tenant
MAX_WINDOWS_LISTED = 100
MAX_SERVICES_LISTED = 32  # of the whole mesh
MAX_EDGES_LISTED = 256  # of the whole mesh
MAX_SUBSCRIBERS = 200  # outside subscribers; each has a durable consumer in one stream
MAX_CALLING_TASKS = 1_000  # that called a tool, in one answer
MAX_SPEND_SLICES = 96  # of the time that is asked about
MAX_SPEND_OUTLIERS = 50  # in one answer
MAX_SPEND_S = 31 * 24 * 3600
MAX_SPEND_MESSAGES = 100_000  # that one answer is made of
SPEND_TIMEOUT_MS = 15_000
MAX_WRITES_LISTED = 32  # of one task, of which nobody knows whether they were done
MAX_WRITES_BYTES = 128 * 1024  # their arguments together
WRITES_TIMEOUT_MS = 5_000
MAX_TOLD_MESSAGES = 256  # of one task's journal, in one page
MAX_TOLD_BYTES = 384 * 1024  # of one page, as JSON
MAX_SUBJECT_CHARS = 400  # of a stored message
MAX_DEAD_LETTER_BYTES_PER_DAY = 8 * 1024 * 1024  # of each program outside, at each replica of a service
MAX_LETTERS_LISTED = 100  # dead letters in one page
MAX_LETTERS_READ = 2_000  # dead letters of one tenant that one page is chosen from
MAX_LETTER_MARKS = 16  # of one letter, the newest
MAX_LETTER_CHARS = 32 * 1024  # of a dead letter's body that are shown
MAX_LETTER_HEADERS = 64  # that are shown
MAX_LETTER_HEADER_CHARS = 256  # that are shown
MAX_STORY_MESSAGES = 10_000  # that one story or timeline is made of
MAX_STORY_BYTES = 8 * 1024 * 1024  # their bodies
MAX_EXPORT_BYTES = 16 * 1024 * 1024  # contents of one export over HTTP
MAX_CITED_CHARS = 64 * 1024  # text behind one citation that is shown
MAX_CITED_MESSAGES = 5_000  # messages of a task in which its citations are looked for

# Push notifications
MAX_PUSH_HOSTS = 64  # that a tenant's row names
MAX_PUSH_CONFIGS = 8  # of one task, at a time
MAX_PUSH_SETTINGS = 64  # of one task, in its life
MAX_PUSH_URL_CHARS = 2_000
MAX_PUSH_TOKEN_CHARS = 512
MAX_PUSH_WAITING = 32  # for one receiver, of one task; then those between the first and the last are left out

# Ratings
MAX_RATERS = 100  # people and judges that rate one task, by kind
MAX_RATING_CHANGES = 20  # of one of these

# Sessions
MAX_POINTER_CHARS = 200  # of a place in arguments, results or a schema
MAX_SESSION_TURNS = 1_000
MAX_SESSION_PARTICIPANTS = 32
MAX_WINDOW_TURNS = 20  # of a session, that are shown whole
DEFAULT_WINDOW_TURNS = 2
MAX_PINNED_FACTS = 50  # of one session
MAX_PINNED_FACT_CHARS = 500
MAX_SESSION_FACTS = 4_000  # messages of one session
MAX_SESSION_SUMMARY_CHARS = 4_000
DEFAULT_SUMMARY_COST_USD_MICROS = 200_000  # of all summaries of one session
MAX_LOST_FIGURES = 20  # that a session's summary names as left out
MAX_TURN_INPUTS = 4  # parts of a session's memory that a turn is shown

# Peers and leases
MAX_ASKED_STEPS = 16  # by one ask
MAX_PEER_ANSWER_CHARS = 4_000
MAX_OPEN_QUESTIONS = 16  # to one step, not yet answered
MAX_RESOURCE_NAME_CHARS = 128
MIN_LEASE_TTL_MS = 1_000
DEFAULT_LEASE_TTL_MS = 60_000
MAX_LEASE_TTL_MS = 600_000
MAX_LEASE_QUEUE = 64  # steps that wait for one resource
MAX_LEASES_PER_STEP = 16
MAX_LEASE_BOOK_MESSAGES = 3_000  # about one resource since it was last free, with room to give back below the fold's

# Coordination health
MAX_TRIP_AGENTS = 64
MAX_TRIP_EVIDENCE = 64

# Documents
MAX_DOCUMENT_TEXT_CHARS = 4_000_000  # of extracted text: a small PDF can unfold into a very large text
MAX_PDF_PAGES = 2_000
MAX_ASKED_PDF_PAGES = 600  # of one that an outside agent shows a model
MAX_CHUNKS_PER_DOCUMENT = 20_000
MAX_CHUNK_CHARS = 1_600  # of one chunk's text that is shown
MAX_LOST_PAGES = 100  # of a document, named with their reasons; the others are counted
MAX_QUERY_TERMS = 32
MAX_CANDIDATES = 200  # chunks that are ranked for one query

# Tools
MAX_EXPRESSION_CHARS = 500
MAX_EXPONENT = 256
MAX_RESULT_DIGITS = 50
MAX_TOOL_RETRIES = 2  # attempts after the first
MAX_REDIRECTS = 3

# MCP servers
MAX_MCP_SERVERS = 64
MAX_MCP_REPLICAS = 16  # of one server
MAX_MCP_TOOLS = 1_000  # of one server that are pinned
MAX_MCP_DESCRIPTION_CHARS = 600  # of one tool that are shown
MAX_MCP_ARGUMENT_DESCRIPTION_CHARS = 200
MAX_MCP_ANSWER_BYTES = 8 * 1024 * 1024  # of one answer that is read

# Remote A2A agents
MAX_AGENTS = 64
MAX_CARD_BYTES = 64 * 1024
MAX_AGENT_TEXT_CHARS = 15_000  # that one call sends; a call's arguments hold no more
MAX_AGENT_INPUT_CHARS = 400_000  # that one message tells, with results of earlier steps
MAX_AGENT_EVENTS = 10_000  # of one call that are read
MAX_AGENT_ARTIFACTS = 64  # of one call that are kept
MAX_AGENT_PARTS = 20_000  # of one artifact or message that are read
MAX_AGENT_TASK_ID_CHARS = 256  # of the id that an agent gives its task

# Doors: requests of outside agents
MAX_ASKED_BYTES = 16 * 1024 * 1024  # body of one request; images stand in it
MAX_ASKED_TOOLS = 128  # that one request offers the model
MAX_ASKED_VALUES = 150_000  # objects, lists, their entries and strings of one body
MAX_MODELS_TOLD = 512  # in one list of models
MAX_ASKED_OUTPUT_TOKENS = 1_000_000

# Prompts that a tenant's people change
MAX_PROMPT_CHARS = 32 * 1024
MAX_PROMPT_ID_CHARS = 48
MAX_PROMPT_NAME_CHARS = 64
MAX_PROMPT_VARIABLES = 16
MAX_PROMPT_CHOICES = 16
MAX_PROMPTS = 64  # that one mesh asks for, and that one release names
MAX_RELEASED_PROMPTS = 64
MAX_RELEASE_LABELS = 8  # of one tenant
MAX_PROMPT_VERSIONS = 10_000  # of one prompt of one tenant
MAX_PROMPT_ACTS_A_DAY = 200  # of one prompt, and of one label, of one tenant
MAX_RELEASE_BYTES = 64 * 1024
MAX_PROMPT_PAGE = 20  # versions that are listed at once
MAX_RELEASE_PAGE = 50
MAX_DRIFT_ALARMS = 50

# Workflows
MAX_WORKFLOW_PARAMETERS = 32
MAX_WORKFLOW_VALUE_CHARS = 4_000
MAX_WORKFLOW_BYTES = 192 * 1024  # of one version
MAX_NESTED_BYTES = 320 * 1024  # of a version with all that it nests
MAX_COMPOSED_BYTES = 384 * 1024  # of the steps of a run, with their labels; a message holds more
MAX_WORKFLOW_VERSIONS = 10_000  # of one workflow
MAX_WORKFLOWS = 500  # of one tenant
MAX_WORKFLOW_DRAFTS_A_DAY = 100  # of one tenant
MAX_SCHEDULE_BYTES = 16 * 1024  # of a schedule or a trigger, with its values
MAX_WORKFLOW_TRANSITIONS = 40  # of one version
MAX_WORKFLOW_ROWS = 500  # that are listed at once
MAX_WORKFLOW_DEPTH = 5  # workflows within each other
MAX_NESTED_WORKFLOWS = 64  # versions that one run stands on, beside its own

# Events from outside
MAX_EVENT_ID_CHARS = 128
MAX_EVENT_KEY_CHARS = 200
MAX_EVENT_BODY_CHARS = 32 * 1024
MAX_EVENT_SOURCES = 16  # of a wait or trigger, and of kept events
MAX_EVENT_EARLY_MS = 24 * 3_600_000  # so long before a wait an event may have come
MAX_KEPT_EVENTS = 16  # of one name, key and source, for waits that begin later
MAX_EVENT_WAITERS = 64  # steps that wait for one name and key
MAX_TRIGGER_RUNS_PER_MINUTE = 60

# Evaluations
MAX_STATEMENT_BYTES = 200_000  # of a signed statement with its envelope
MAX_STATEMENT_SUBJECTS = 256
MAX_FAILED_CASES = 50
MAX_EXCERPT_CHARS = 400
MAX_EVALUATION_PAGE = 20
