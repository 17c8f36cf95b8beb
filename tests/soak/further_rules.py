"""More rules of inbox and outbox: identity, retries, finishing together, telling and storing."""

from __future__ import annotations

from tests.soak.mutation import Mutation

INBOX = "tests/integration/test_inbox.py"
RACES = "tests/integration/test_races.py"
TOGETHER = "tests/integration/test_finishing_together.py"
OUTBOX = "tests/integration/test_outbox.py"
CLIPS = "tests/integration/test_clip_handlers.py"
BUS = "tests/contract/test_bus.py"
DEATHS = "tests/anomaly/test_kill_steps.py::test_a_death_at_any_step_is_not_noticed"
DATABASE = "tests/integration/test_database.py"

_IDENTITY = (
    Mutation(
        "A request that was answered is answered again from its row",
        "services/clipper/handlers.py",
        "    if seen and seen.status == STATUS_OF[ClipAvailable]:\n        return _answer_again(seen)\n",
        "",
        f"{CLIPS}::test_the_same_request_is_answered_again_without_work",
    ),
    Mutation(
        "Another request under the same id is refused",
        "services/clipper/handlers.py",
        "    if seen and not seen.asks_for(event):\n        return Done(conflicting_duplicate(event))\n",
        "",
        f"{CLIPS}::test_another_request_under_the_same_id_is_refused_and_changes_nothing",
    ),
    Mutation(
        "A result that is announced again has the same id",
        "shared/events/envelope.py",
        "derived_id(data.type, data.request_key, data.revision_key)",
        "derived_id(data.type, data.request_key, data.revision_key, str(time_ms))",
        "tests/unit/test_clip_outcome.py::test_an_answer_said_again_has_the_same_event_id",
    ),
    Mutation(
        "Another answer to the same request has another id",
        "services/clipper/domain/clip_outcome.py",
        'else outcome.model_copy(update={"revision": before.revision + 1})',
        "else same_again",
        "tests/unit/test_clip_outcome.py::test_every_new_answer_counts_up_and_has_an_event_id_of_its_own",
    ),
    Mutation(
        "What decided on a world that has moved is not written",
        "services/clipper/store.py",
        (
            "clip_table.c.clip_id == seen.clip_id, clip_table.c.revision == seen.revision)\n"
            "        .where(clip_table.c.result_type.is_not_distinct_from(seen.result_type))\n"
        ),
        "clip_table.c.clip_id == seen.clip_id)\n",
        f"{CLIPS}::test_two_workers_on_one_request_conclude_it_once",
    ),
    Mutation(
        "What decided on a world that has moved is done again at once",
        "shared/inbox/endings.py",
        "delay_ms = 0 if isinstance(error, WorldMoved) else decision.delay_ms",
        "delay_ms = decision.delay_ms",
        f"{INBOX}::test_a_write_that_finds_the_world_moved_undoes_all_and_the_work_is_done_again",
    ),
    Mutation(
        "States move by rank: a removal that comes late hides no newer object",
        "services/clipper/handlers.py",
        "    if indexed is None or await _is_stored(clipper, event.key):\n",
        "    if indexed is None:\n",
        f"{CLIPS}::test_a_removal_that_comes_late_hides_no_newer_object",
    ),
    Mutation(
        "A source that is announced again while it is forgotten stays",
        "services/clipper/store.py",
        "delete(source_table).where(source_table.c.id == indexed.id, same)",
        "delete(source_table).where(source_table.c.id == indexed.id)",
        f"{CLIPS}::test_a_source_that_is_announced_again_while_it_is_forgotten_stays",
    ),
    Mutation(
        "A request over HTTP and the telling of it are one transaction",
        "services/clipper/store.py",
        "            await tell(connection)\n",
        "",
        f"{CLIPS}::test_a_request_over_http_is_written_down_and_told_together_or_not_at_all",
    ),
)

_ACCEPTING = (
    Mutation(
        "A batch is inserted in the order of its keys: what is alive",
        "shared/inbox/accept.py",
        ".order_by(brought.place)",
        '.order_by(literal_column("random()"))',
        f"{RACES}::test_rows_are_inserted_in_the_order_of_their_keys",
    ),
    Mutation(
        "A batch is inserted in the order of its keys: what is dead",
        "shared/inbox/accept.py",
        "prepared.sort(key=lambda each: each.identity)",
        "pass",
        f"{RACES}::test_rows_are_inserted_in_the_order_of_their_keys",
    ),
    Mutation(
        "A batch of an ordered subscription is inserted in the order in which it came",
        "shared/inbox/accept.py",
        "        if not self._route.ordered:\n            # The order is",
        "        if True:\n            # The order is",
        f"{INBOX}::test_an_ordered_subscription_works_each_subject_in_order",
    ),
    Mutation(
        "What waits for an arrival or a moment is no part of the look-ahead",
        "shared/inbox/pool.py",
        "            .where(inbox.c.waiting.is_(False))\n",
        "",
        f"{INBOX}::test_rows_that_wait_hold_up_no_other_subject",
    ),
    Mutation(
        "The insert names its conflict target: no other collision is swallowed",
        "shared/inbox/accept.py",
        (
            "            .from_select([*_BROUGHT, *same], rows)\n"
            "            .on_conflict_do_nothing(index_elements=_IDENTITY)\n"
        ),
        "            .from_select([*_BROUGHT, *same], rows)\n            .on_conflict_do_nothing()\n",
        f"{RACES}::test_a_collision_that_is_no_redelivery_loses_no_event",
    ),
    Mutation(
        "A deadlock or a serialisation failure is run again",
        "shared/database/postgresql.py",
        '_RUN_AGAIN = frozenset({"40001", "40P01", "55P03"})',
        "_RUN_AGAIN = frozenset[str]()",
        f"{DATABASE}::test_units_that_lock_each_other_are_run_again",
    ),
    Mutation(
        "The broker's own delivery limit is high",
        "shared/bus/rabbitmq_topology.py",
        "DELIVERY_LIMIT = 200\n",
        "DELIVERY_LIMIT = 20\n",
        "tests/integration/test_rabbitmq.py::test_what_the_broker_gives_up_is_received_from_the_dead_letters",
    ),
    Mutation(
        "What the broker gives up is kept before it is acknowledged",
        "shared/inbox/undertaker.py",
        "        await self._database.write(unit)\n        await self._bus.acknowledge(deliveries)\n",
        "        await self._bus.acknowledge(deliveries)\n        await self._database.write(unit)\n",
        "tests/integration/test_undertaker.py::test_what_the_broker_gave_up_waits_for_a_database_that_is_away",
    ),
    Mutation(
        "No more is begun than there are hands",
        "shared/inbox/pool.py",
        "        return min(hands - len(self._handling), 2 * hands - len(self._hands))\n",
        "        return 2 * hands - len(self._hands)\n",
        f"{RACES}::test_no_more_is_begun_than_there_are_hands",
    ),
    Mutation(
        "RabbitMQ is asked for no more than there are free hands",
        "shared/bus/rabbitmq_consumer.py",
        "            wanted = min(wanted, self._room())\n            if self._stopped",
        "            if self._stopped",
        f"{BUS}::test_no_more_than_there_are_hands_is_held_at_once",
    ),
    Mutation(
        "SQS is asked for no more than there are free hands",
        "shared/bus/sqs_receiver.py",
        "wanted = min(at_most, self._subscription.hands - len(self._held), MAX_BATCH)",
        "wanted = min(at_most, MAX_BATCH)",
        f"{BUS}::test_no_more_than_there_are_hands_is_held_at_once",
    ),
    Mutation(
        "The broker is paid only for the hands that became free",
        "shared/bus/rabbitmq_consumer.py",
        "                await self._pay(owed[:lacking])\n",
        "                await self._pay(owed)\n",
        "tests/integration/test_rabbitmq.py::test_the_broker_sends_no_more_than_the_hands_that_became_free",
    ),
    Mutation(
        "A command that nobody hears is an error on RabbitMQ",
        "shared/bus/rabbitmq_publisher.py",
        "            if message.mandatory:\n                raise Unroutable",
        "            if False:\n                raise Unroutable",
        f"{BUS}::test_a_command_that_nobody_receives_is_unroutable",
    ),
)

_WORKING = (
    Mutation(
        "Work that is tried again after a failure holds its subject",
        "shared/inbox/claims.py",
        "_other.c.id < _row.c.id, not_(_other.c.waiting)\n",
        "_other.c.id < _row.c.id, _other.c.not_before_ms.is_(None)\n",
        f"{INBOX}::test_work_that_waits_lets_its_subject_go_on_and_failed_work_does_not",
    ),
    Mutation(
        "What was claimed for nobody is given back with the next look",
        "shared/inbox/claims.py",
        "            if self._astray.get(consumer, 0) > self._clock.monotonic_ms():\n",
        "            if False:\n",
        f"{INBOX}::test_a_claim_whose_commit_had_an_unknown_outcome_waits_for_no_lease",
    ),
    Mutation(
        "Work that was cancelled while it waited is not begun",
        "shared/inbox/endings.py",
        "        if claim.row.cancel_requested:\n",
        "        if False:\n",
        f"{INBOX}::test_a_person_can_cancel_work_that_waits",
    ),
    Mutation(
        "What a handler cancels of its own ends nobody else",
        "shared/inbox/handling.py",
        '            raise Transient("something within the handler cancelled it") from None\n',
        "            raise\n",
        f"{INBOX}::test_an_exception_decides_what_becomes_of_the_work",
    ),
    Mutation(
        "What fails for good is not tried again",
        "shared/inbox/endings.py",
        "        if isinstance(error, Permanent):\n            return await self._bury(hand, reason)\n",
        "",
        f"{INBOX}::test_an_exception_decides_what_becomes_of_the_work",
    ),
    Mutation(
        "Failures are bounded by their number",
        "shared/inbox/retry.py",
        "    if attempt >= policy.attempts:\n",
        "    if False:\n",
        "tests/unit/test_retry.py::test_every_bound_ends_it",
    ),
    Mutation(
        "Failures are bounded by their age",
        "shared/inbox/retry.py",
        "    if failing_ms + delay_ms > policy.failing_ms:\n",
        "    if False:\n",
        "tests/unit/test_retry.py::test_every_bound_ends_it",
    ),
    Mutation(
        "Work that has no attempt left is not begun",
        "shared/inbox/endings.py",
        "        if claim.attempt > policy.attempts:\n",
        "        if False:\n",
        f"{INBOX}::test_a_crash_loop_runs_out_of_attempts",
    ),
    Mutation(
        "An outage gives its attempt back",
        "shared/inbox/endings.py",
        "reason=reason, counted=False)",
        "reason=reason, counted=True)",
        "tests/integration/test_outage.py::test_an_outage_stops_taking_and_burns_no_attempt",
    ),
    Mutation(
        "Nothing is taken while what it needs is away",
        "shared/inbox/intake.py",
        "            if self._clock.monotonic_ms() < self._pause.until_ms:\n",
        "            if False:\n",
        "tests/unit/test_intake.py::test_several_in_a_row_that_find_it_away_are_an_outage_whatever_it_says",
    ),
    Mutation(
        "A handler registers before it looks",
        "services/clipper/handlers.py",
        (
            "    await work.wake_on(sources_of(event.camera_id))\n"
            "    plan = plan_clip(wanted, await clipper.sources.overlapping(event.camera_id, wanted))\n"
        ),
        (
            "    plan = plan_clip(wanted, await clipper.sources.overlapping(event.camera_id, wanted))\n"
            "    await work.wake_on(sources_of(event.camera_id))\n"
        ),
        f"{CLIPS}::test_a_source_that_comes_while_a_request_registers_is_seen",
    ),
    Mutation(
        "Old rows are dropped in slices",
        "shared/database/purging.py",
        "chosen = old.limit(SLICE_ROWS).cte",
        "chosen = old.cte",
        f"{INBOX}::test_old_rows_are_dropped_slice_by_slice",
    ),
    Mutation(
        "Only what is done is purged, and only when it is old",
        "shared/inbox/listing.py",
        "inbox.c.state == DONE, inbox.c.done_ms < before_ms",
        "inbox.c.done_ms < before_ms",
        f"{INBOX}::test_what_was_done_long_ago_is_purged_and_nothing_else",
    ),
)

_ENDING = (
    Mutation(
        "After a commit with unknown outcome it is done only if the row says so",
        "shared/inbox/finish.py",
        "(unknown and await self._is_concluded(ending.claim))",
        "unknown",
        f"{INBOX}::test_a_lost_commit_is_no_success_where_somebody_has_taken_over",
    ),
    Mutation(
        "A drain lets go of what the broker sent ahead",
        "shared/inbox/worker.py",
        "            await self._bus.stop_receiving()\n",
        "            pass\n",
        f"{INBOX}::test_a_drain_lets_go_of_what_the_broker_sent_ahead_before_it_waits_for_hands",
    ),
    Mutation(
        "A queue keeps its dead letters until they have arrived",
        "shared/bus/rabbitmq_topology.py",
        '        "x-dead-letter-strategy": "at-least-once",\n',
        "",
        "tests/integration/test_rabbitmq.py::test_a_queue_keeps_its_dead_letters_until_they_have_arrived",
    ),
    Mutation(
        "Failures are counted from the first of a row of them",
        "shared/inbox/endings.py",
        "return self._clock.now_ms() - since_ms if since_ms else 0",
        "return 0",
        f"{INBOX}::test_failures_run_out_by_their_age_however_many_are_left",
    ),
    Mutation(
        "A shared transaction that has to run again is taken apart",
        "shared/inbox/finish.py",
        "            if runs > 1 and len(endings) > 1:\n",
        "            if False:\n",
        f"{TOGETHER}::test_a_shared_transaction_that_has_to_run_again_is_taken_apart",
    ),
    Mutation(
        "Those that finish together write in the order of their subjects",
        "shared/inbox/finish.py",
        "ordered = sorted(endings, key=lambda each: (each.claim.row.subject, each.claim.row.id))",
        "ordered = list(endings)",
        f"{TOGETHER}::test_writes_come_to_their_rows_by_subject",
    ),
    Mutation(
        "Whoever leads a shared transaction and is cancelled takes nobody along",
        "shared/inbox/together.py",
        (
            "            for each in batch:\n"
            '                each.call(OutcomeUnknown("who led the transaction was stopped"))\n'
        ),
        "",
        f"{TOGETHER}::test_who_is_cancelled_takes_nobody_along",
    ),
    Mutation(
        "Whoever is called to lead and is cancelled calls the next one",
        "shared/inbox/together.py",
        "            if own.is_called_to_lead:\n                lane.hand_over()\n",
        "",
        f"{TOGETHER}::test_who_is_cancelled_when_called_to_lead_calls_the_next",
    ),
    Mutation(
        "A command among the results has to be heard",
        "shared/inbox/finish.py",
        "                data.kind is Kind.COMMAND,\n",
        "                False,\n",
        f"{INBOX}::test_a_command_among_the_results_has_to_be_heard",
    ),
    Mutation(
        "A transaction of SQLite takes the lock when it begins",
        "shared/database/sqlite_file.py",
        'connection.exec_driver_sql("BEGIN IMMEDIATE")',
        'connection.exec_driver_sql("BEGIN")',
        f"{DATABASE}::test_a_unit_that_has_read_can_be_sure_of_it_on_sqlite",
    ),
    Mutation(
        "Of units that share a commit on SQLite one that fails is undone alone",
        "shared/database/sqlite_writer.py",
        '                self._driver.execute("ROLLBACK TO unit")\n',
        "                pass\n",
        f"{DATABASE}::test_a_unit_that_raises_is_undone_and_its_neighbours_are_not",
    ),
    Mutation(
        "Readers of SQLite have connections that cannot write",
        "shared/database/sqlite_file.py",
        '_pragmas(connection, f"busy_timeout = {BUSY_TIMEOUT_MS}", "query_only = ON")',
        '_pragmas(connection, f"busy_timeout = {BUSY_TIMEOUT_MS}")',
        f"{DATABASE}::test_a_reader_cannot_write",
    ),
    Mutation(
        "Space that was freed on SQLite is given back",
        "shared/database/sqlite_file.py",
        '            "auto_vacuum = INCREMENTAL",',
        '            "auto_vacuum = NONE",',
        f"{DATABASE}::test_space_that_was_freed_is_given_back",
    ),
    Mutation(
        "A heartbeat is the next write on SQLite",
        "shared/database/sqlite_writer.py",
        "        for queue in (self._urgent, self._ordinary):\n            while queue",
        "        for queue in (self._ordinary, self._urgent):\n            while queue",
        f"{DATABASE}::test_an_urgent_write_is_next_on_sqlite",
    ),
)

_TELLING = (
    Mutation(
        "What is sent again gets a place that no turn under way has passed",
        "shared/outbox/refused.py",
        "last_sequence=last + len(row_ids), attempts=0",
        "sent_sequence=0, attempts=0",
        f"{OUTBOX}::test_what_is_sent_again_while_its_subject_is_on_its_way_is_not_lost",
    ),
    Mutation(
        "A writer updates the row of its subject",
        "shared/outbox/writing.py",
        'set_={"last_sequence": outbox_subject.c.last_sequence + number}',
        'set_={"last_sequence": outbox_subject.c.last_sequence}',
        f"{OUTBOX}::test_each_subject_has_a_sequence_without_gaps_whoever_writes",
    ),
    Mutation(
        "Two relays lock the subjects that they choose",
        "shared/outbox/subjects.py",
        "            .with_for_update(skip_locked=True, of=_subject)\n",
        "",
        f"{OUTBOX}::test_two_relays_never_have_the_same_subject",
    ),
    Mutation(
        "At most one unconfirmed event of each subject is on its way",
        "shared/outbox/relay.py",
        "                await self._publish([turn.waiting[0] for turn in batch])\n",
        "                await self._publish([event for turn in batch for event in turn.waiting])\n",
        f"{OUTBOX}::test_what_was_committed_is_published_and_marked",
    ),
    Mutation(
        "A subject is given back only while it is ours",
        "shared/outbox/subjects.py",
        "        ours = old.relay == self._relay\n",
        "        ours = old.relay.is_not(None)\n",
        f"{OUTBOX}::test_a_subject_that_another_relay_has_is_left_alone",
    ),
    Mutation(
        "Nothing new is published when the lease of its subject is about to end",
        "shared/outbox/relay.py",
        "            while self._clock.monotonic_ms() < stop_ms:\n",
        "            while True:\n",
        f"{OUTBOX}::test_a_turn_ends_well_before_its_lease",
    ),
    Mutation(
        "A relay gives back what it may hold without knowing",
        "shared/outbox/relay.py",
        "            if self._may_hold_leases:\n                await self._subjects.let_go()\n",
        "",
        f"{OUTBOX}::test_a_claim_or_an_end_that_got_lost_costs_no_lease",
    ),
    Mutation(
        "A wake that comes before the commit is not too early",
        "shared/outbox/relay.py",
        "SOON_S = (0.0, 0.005, 0.02, 0.08, 0.25)\n",
        "SOON_S = (0.0,)\n",
        f"{OUTBOX}::test_a_wake_before_the_commit_is_not_too_early",
    ),
    Mutation(
        "A command over HTTP has to be heard",
        "shared/outbox/writing.py",
        "[(event, data.kind is Kind.COMMAND)]",
        "[(event, False)]",
        f"{OUTBOX}::test_a_wake_before_the_commit_is_not_too_early",
    ),
    Mutation(
        "A restart of an embedded Spool waits for no lease of its work",
        "spool/serving.py",
        "                await release_all_claims(platform.database)\n",
        "",
        f"{DEATHS}[local-sqlite-file-making]",
    ),
    Mutation(
        "Whoever gets the lock on the directory frees the subjects as well",
        "shared/outbox/subjects.py",
        "outbox_subject.c.relay.is_not(None))\n",
        "outbox_subject.c.relay.is_(None))\n",
        f"{OUTBOX}::test_a_subject_that_another_relay_has_is_left_alone",
    ),
)

_STORING = (
    Mutation(
        "What an earlier attempt finished is adopted",
        "shared/media/settling.py",
        "                return await _settled(storage, there, await way.prove(there), adopted=True)\n",
        "                await way.prove(there)\n",
        "tests/media/test_clip_lossless.py::test_what_an_earlier_attempt_finished_is_adopted",
    ),
    Mutation(
        "Nothing is written over what another worker finished",
        "shared/media/settling.py",
        "        condition = replace(options, if_absent=True, if_match=None)\n",
        "        condition = replace(options, if_absent=False, if_match=None)\n",
        "tests/media/test_settling.py::test_what_another_worker_finishes_meanwhile_is_adopted",
    ),
    Mutation(
        "Only that is replaced which was looked at",
        "shared/media/settling.py",
        "if_absent=False, if_match=there.etag)",
        "if_absent=False, if_match=None)",
        "tests/media/test_settling.py::test_what_another_worker_finishes_meanwhile_is_adopted",
    ),
    Mutation(
        "An upload is written down before its first byte",
        "shared/storage/drafts.py",
        (
            '        self._write_whole(self._uploads / f"{upload_id}.json", upload_id, asdict(intent))\n'
            "        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC\n"
            "        return os.open(self.data_path(upload_id), flags, 0o666)\n"
        ),
        (
            "        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC\n"
            "        return os.open(self.data_path(upload_id), flags, 0o666)\n"
        ),
        "tests/contract/test_storage.py::test_an_unfinished_upload_is_listed_and_can_be_aborted",
    ),
)

FURTHER = (*_IDENTITY, *_ACCEPTING, *_WORKING, *_ENDING, *_TELLING, *_STORING)
