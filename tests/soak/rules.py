"""The rules that hold inbox and outbox together, each with what takes it out and the test that notices."""

from __future__ import annotations

from tests.soak.further_rules import FURTHER
from tests.soak.mutation import Mutation

MUTATIONS = (
    Mutation(
        "A delivery is known by (consumer, source, id)",
        "shared/inbox/accept.py",
        '            "event_id": event.id,\n',
        '            "event_id": str(uuid.uuid4()),\n',
        "tests/integration/test_inbox.py::test_a_redelivery_is_recognised",
    ),
    Mutation(
        "What cannot be read is known by its transport's id",
        "shared/inbox/accept.py",
        '"event_id": named or digest_id(reading.body)',
        '"event_id": str(uuid.uuid4())',
        ("tests/integration/test_inbox.py::test_what_cannot_be_read_is_kept_with_the_field_and_its_bytes"),
    ),
    Mutation(
        "Acknowledged only after the commit",
        "shared/inbox/accept.py",
        "                rows = await self._insert_all(prepared) if prepared else []\n",
        (
            "                await self._acknowledge(deliveries)\n"
            "                rows = await self._insert_all(prepared) if prepared else []\n"
        ),
        "tests/integration/test_inbox.py::test_nothing_is_acknowledged_while_the_database_is_down",
    ),
    Mutation(
        "A bad row never holds its neighbours",
        "shared/inbox/accept.py",
        (
            "        except (SQLAlchemyError, ValueError) as error:\n"
            '            log.warning("inbox.batch_failed"'
        ),
        '        except ZeroDivisionError as error:\n            log.warning("inbox.batch_failed"',
        "tests/integration/test_inbox.py::test_a_row_that_cannot_be_stored_never_holds_its_neighbours",
    ),
    Mutation(
        "In an ordered subscription nothing is inserted already claimed",
        "shared/inbox/accept.py",
        '            "state": READY if self._route.ordered else WORKING,\n',
        '            "state": WORKING,\n',
        ("tests/integration/test_races.py::test_what_comes_while_its_subject_is_worked_is_kept_as_ready"),
    ),
    Mutation(
        "Hands belong to a subscription: none starves another",
        "shared/inbox/worker.py",
        "                        pools.create_task(pool.run())\n",
        "                        await pool.run()\n",
        "tests/integration/test_races.py::test_work_that_takes_an_hour_starves_no_other_subscription",
    ),
    Mutation(
        "The next is begun while the last is being committed",
        "shared/inbox/endings.py",
        "        hand.handled()\n",
        "",
        (
            "tests/integration/test_races.py"
            "::test_the_next_is_begun_while_the_last_is_being_committed_and_no_more_than_that"
        ),
    ),
    Mutation(
        "Of those being committed there are no more than hands",
        "shared/inbox/pool.py",
        "        return min(hands - len(self._handling), 2 * hands - len(self._hands))\n",
        "        return hands - len(self._handling)\n",
        (
            "tests/integration/test_races.py"
            "::test_the_next_is_begun_while_the_last_is_being_committed_and_no_more_than_that"
        ),
    ),
    Mutation(
        "Ready rows are worked before anything new is received",
        "shared/inbox/pool.py",
        "        if self._look or self._clock.monotonic_ms() >= self._next_poll_ms:\n",
        (
            "        if self._next_poll_ms == 0:\n"
            "            self._next_poll_ms = self._clock.monotonic_ms() + 50\n"
            "        elif self._look or self._clock.monotonic_ms() >= self._next_poll_ms:\n"
        ),
        "tests/integration/test_races.py::test_ready_rows_are_worked_before_anything_new_is_received",
    ),
    Mutation(
        "What was received and cannot be kept goes back at a drain",
        "shared/inbox/pool.py",
        "        await self._bus.give_back(deliveries)\n",
        "",
        "tests/integration/test_inbox.py::test_deliveries_in_hand_go_back_when_the_drain_comes_first",
    ),
    Mutation(
        "The look-ahead of an ordered subscription is bounded",
        "shared/inbox/pool.py",
        "return min(free, LOOK_AHEAD_ROWS - waiting)",
        "return free",
        "tests/integration/test_inbox.py::test_an_ordered_subscription_looks_only_so_far_ahead",
    ),
    Mutation(
        "The consumer is cancelled before the acknowledgement that fills the last hand",
        "shared/bus/rabbitmq_consumer.py",
        "        if self._tag is None or not self._hands_are_full:\n",
        "        if True:\n",
        ("tests/integration/test_rabbitmq.py::test_nothing_waits_unacknowledged_where_all_hands_are_full"),
    ),
    Mutation(
        "What was prefetched and nobody asks for goes back",
        "shared/bus/rabbitmq_consumer.py",
        "        if self._tag is not None and not self._waiting and idle_s > IDLE_S:\n",
        "        if False:\n",
        (
            "tests/integration/test_rabbitmq.py::test_what_was_prefetched_goes_to_others_"
            "when_nobody_asks_for_it"
        ),
    ),
    Mutation(
        "No token, no commit",
        "shared/inbox/ending.py",
        "and_(inbox.c.id == listed.table.c.id, inbox.c.token == listed.table.c.token)",
        "inbox.c.id == listed.table.c.id",
        "tests/integration/test_inbox.py::test_a_stale_token_commits_nothing",
    ),
    Mutation(
        "The token is looked at before an effect elsewhere",
        "shared/inbox/claims.py",
        "return and_(inbox.c.id == row_id, inbox.c.token == token, inbox.c.state == WORKING)",
        "return and_(inbox.c.id == row_id, inbox.c.state == WORKING)",
        "tests/integration/test_inbox.py::test_a_stale_token_commits_nothing",
    ),
    Mutation(
        "The token grows with each claim",
        "shared/inbox/claims.py",
        "                token=inbox.c.token + 1,\n",
        "                token=inbox.c.token,\n",
        "tests/integration/test_inbox.py::test_a_stale_token_commits_nothing",
    ),
    Mutation(
        "Two claimers lock what they choose",
        "shared/inbox/claims.py",
        "        .with_for_update(skip_locked=True, of=_row)\n",
        "",
        "tests/integration/test_inbox.py::test_two_claimers_never_get_the_same_row",
    ),
    Mutation(
        "Heartbeats have a connection of their own",
        "shared/database/postgresql.py",
        "chosen = self._reserved if urgent else self._engine",
        "chosen = self._engine",
        "tests/integration/test_database.py::test_an_urgent_write_needs_no_connection_of_the_others",
    ),
    Mutation(
        "A late heartbeat succeeds while the token is ours",
        "shared/inbox/claims.py",
        "            ours = locked(pairs, inbox.c.state == WORKING)\n",
        (
            "            alive = inbox.c.lease_until_ms > self._database.now_sql()\n"
            "            ours = locked(pairs, inbox.c.state == WORKING, alive)\n"
        ),
        "tests/integration/test_inbox.py::test_a_late_heartbeat_succeeds_while_the_token_is_ours",
    ),
    Mutation(
        "A heartbeat tells of a lost claim",
        "shared/inbox/claims.py",
        "pairs = tuple_(inbox.c.id, inbox.c.token).in_([claim.owner for claim in held])",
        "pairs = inbox.c.id.in_([claim.row.id for claim in held])",
        "tests/integration/test_inbox.py::test_a_heartbeat_tells_of_a_lost_claim",
    ),
    Mutation(
        "Claims are extended while their worker lives",
        "shared/inbox/worker.py",
        "                    await self._claims.extend()\n",
        "                    await asyncio.sleep(0)\n",
        "tests/integration/test_inbox.py::test_a_long_piece_of_work_keeps_its_claim",
    ),
    Mutation(
        "A worker stops its own work before the lease can end",
        "shared/inbox/claims.py",
        "self._times.length_ms - self._times.margin_ms\n",
        "self._times.length_ms + self._times.margin_ms\n",
        "tests/integration/test_inbox.py::test_work_stops_before_a_lease_that_cannot_be_extended_ends",
    ),
    Mutation(
        "Leases go by the clock of the database",
        "shared/inbox/claims.py",
        "                .values(lease_until_ms=self._database.now_sql() + self._times.length_ms)\n",
        "                .values(lease_until_ms=self._clock.now_ms() + self._times.length_ms)\n",
        ("tests/anomaly/test_clock_jumps.py::test_on_a_server_a_worker_whose_clock_jumps_keeps_its_claims"),
    ),
    Mutation(
        "Hands go by the monotonic clock",
        "shared/runtime/clock.py",
        "return time.monotonic_ns() // 1_000_000",
        "return time.time_ns() // 1_000_000",
        ("tests/anomaly/test_clock_jumps.py::test_on_a_server_a_worker_whose_clock_jumps_keeps_its_claims"),
    ),
    Mutation(
        "A worker never takes a claim from itself, whatever its clock says",
        "shared/inbox/claims.py",
        "    return and_(run_out, _row.c.id.not_in(held)) if held else run_out\n",
        "    return run_out\n",
        (
            "tests/integration/test_inbox.py::test_a_clock_that_is_set_forward_takes_no_"
            "claim_from_its_own_worker"
        ),
    ),
    Mutation(
        "A child process dies with its parent",
        "shared/media/launcher.py",
        "    _die_with(parent_pid)\n",
        "",
        "tests/media/test_ffmpeg_process.py::test_a_killed_parent_takes_its_ffmpeg_along",
    ),
    Mutation(
        "A child process dies with its claim",
        "shared/inbox/claims.py",
        "                self._cancelled = self._hand.cancel()\n",
        "                pass\n",
        "tests/anomaly/test_running_ffmpeg.py::test_the_ffmpeg_of_a_lost_claim_is_ended",
    ),
    Mutation(
        "COMMIT with unknown outcome: the row is read again",
        "shared/inbox/finish.py",
        "if await end(ending) or (unknown and await self._is_concluded(ending.claim)):",
        "if await end(ending):",
        "tests/integration/test_inbox.py::test_a_commit_with_unknown_outcome_is_looked_up",
    ),
    Mutation(
        "Only the head of a subject is claimed",
        "shared/inbox/claims.py",
        "    head = and_(_is_due(now), not_(occupied), not_(older))\n",
        "    head = and_(_is_due(now), not_(occupied))\n",
        "tests/integration/test_inbox.py::test_only_heads_are_claimed_however_many_claim",
    ),
    Mutation(
        "Nothing is claimed in a lane where somebody works",
        "shared/inbox/claims.py",
        "    head = and_(_is_due(now), not_(occupied), not_(older))\n",
        "    head = and_(_is_due(now), not_(older))\n",
        "tests/integration/test_inbox.py::test_a_woken_row_never_joins_one_that_works_in_its_lane",
    ),
    Mutation(
        "The lane has a unique index as a backstop",
        "spool/migrations/versions/0001_first_tables.py",
        (
            '    _partial_index("inbox_lane", "inbox", ["consumer", "subject"], where="state '
            '= 1 AND ordered", unique=True)\n'
        ),
        "",
        "tests/integration/test_races.py::test_no_two_rows_of_a_subject_are_ever_worked_at_once",
    ),
    Mutation(
        "A row that waits does not hold its subject",
        "shared/inbox/claims.py",
        "_other.c.id < _row.c.id, not_(_other.c.waiting)\n",
        "_other.c.id < _row.c.id\n",
        (
            "tests/integration/test_inbox.py::test_work_that_waits_lets_its_subject_go_on_"
            "and_failed_work_does_not"
        ),
    ),
    Mutation(
        "Whoever gets the lock on the directory releases all claims",
        "shared/inbox/claims.py",
        "            .where(inbox.c.state == WORKING)\n            .values(state=READY, lease",
        "            .where(inbox.c.state == READY)\n            .values(state=READY, lease",
        ("tests/integration/test_inbox.py::test_whoever_holds_the_directory_releases_all_claims_at_once"),
    ),
    Mutation(
        "A person can cancel what runs",
        "shared/inbox/claims.py",
        "            if cancel:\n",
        "            if False:\n",
        "tests/integration/test_inbox.py::test_a_person_can_cancel_work_that_runs",
    ),
    Mutation(
        "A wake since the claim makes Later ready at once",
        "shared/inbox/ending.py",
        "woken = inbox.c.wake_count != row.c.wake_count",
        "woken = inbox.c.wake_count < 0",
        "tests/integration/test_inbox.py::test_a_wake_between_look_and_sleep_is_not_missed",
    ),
    Mutation(
        "A wake is noted by work that runs, too",
        "shared/inbox/wake.py",
        "locked(inbox.c.id.in_(registered), inbox.c.state.in_((READY, WORKING)))\n",
        "locked(inbox.c.id.in_(registered), inbox.c.state.in_((READY,)))\n",
        "tests/integration/test_inbox.py::test_a_wake_between_look_and_sleep_is_not_missed",
    ),
    Mutation(
        "Registering waits for what is just being brought",
        "shared/inbox/wake.py",
        '    if connection.dialect.name != "postgresql":\n',
        "    if True:\n",
        "tests/integration/test_inbox.py::test_registering_waits_for_what_is_just_being_brought",
    ),
    Mutation(
        "A wake does not hurry what failed",
        "shared/inbox/wake.py",
        "    asleep = and_(inbox.c.state == READY, inbox.c.waiting)\n",
        "    asleep = inbox.c.state == READY\n",
        ("tests/integration/test_inbox.py::test_a_wake_does_not_hurry_work_that_is_retried_after_a_failure"),
    ),
    Mutation(
        "Other processes hear of what was woken",
        "shared/inbox/wake.py",
        "        await notify(connection, READY_WORK)\n",
        "        pass\n",
        "tests/integration/test_notices.py::test_a_worker_that_would_not_look_for_long_hears_of_a_wake",
    ),
    Mutation(
        "Other processes hear of what was cancelled",
        "shared/inbox/listing.py",
        "            await notify(connection, READY_WORK)\n",
        "            pass\n",
        "tests/integration/test_inbox.py::test_what_another_process_makes_ready_is_heard_of",
    ),
    Mutation(
        "A line that was lost is not lent again to whoever listens",
        "shared/database/postgresql.py",
        "                await connection.invalidate()\n",
        "                pass\n",
        (
            "tests/integration/test_notices.py::test_a_worker_whose_line_was_cut_finds_what_came_"
            "meanwhile_and_hears_again"
        ),
    ),
    Mutation(
        "Several rows of the inbox are locked by id",
        "shared/inbox/row.py",
        ".order_by(inbox.c.id).with_for_update()",
        ".with_for_update()",
        "tests/integration/test_lock_order.py::test_two_that_want_the_same_rows_never_wait_for_each_other",
    ),
    Mutation(
        "Waiting gives its attempt back",
        "shared/inbox/ending.py",
        '        "state": READY,\n        "attempt": inbox.c.attempt - 1,\n',
        '        "state": READY,\n',
        "tests/integration/test_inbox.py::test_a_wake_between_look_and_sleep_is_not_missed",
    ),
    Mutation(
        "A drain gives its attempt back",
        "shared/inbox/ending.py",
        '{"state": READY, "attempt": inbox.c.attempt - 1, ',
        '{"state": READY, ',
        "tests/integration/test_inbox.py::test_what_does_not_end_within_the_grace_is_given_back",
    ),
    Mutation(
        "A drain releases what does not end within the grace",
        "shared/inbox/worker.py",
        "            return\n        self._claims.stop_all(Stop.DRAIN)\n",
        "            return\n",
        "tests/integration/test_inbox.py::test_what_does_not_end_within_the_grace_is_given_back",
    ),
    Mutation(
        "Waits are bounded by age",
        "shared/inbox/endings.py",
        "        if waited_ms > hand.route.retry.waiting_ms:\n",
        "        if False:\n",
        "tests/integration/test_inbox.py::test_a_wait_is_bounded_by_its_age",
    ),
    Mutation(
        "Attempts are counted at claim: a crash runs out of them",
        "shared/inbox/claims.py",
        "                attempt=inbox.c.attempt + 1,\n",
        "                attempt=inbox.c.attempt,\n",
        "tests/integration/test_inbox.py::test_a_crash_loop_runs_out_of_attempts",
    ),
    Mutation(
        "A relay claims subjects, and leaves those of others alone",
        "shared/outbox/subjects.py",
        "_subject.c.last_sequence > _subject.c.sent_sequence, free)",
        "_subject.c.last_sequence > _subject.c.sent_sequence)",
        "tests/integration/test_outbox.py::test_two_relays_keep_the_order_of_each_subject",
    ),
    Mutation(
        "A subject that nobody holds is free, whatever the clock says",
        "shared/outbox/subjects.py",
        (
            "            _subject.c.lease_until_ms <= now, and_(_subject.c.relay.is_(None), "
            "_subject.c.attempts == 0)\n"
        ),
        "            _subject.c.lease_until_ms <= now,\n",
        (
            "tests/integration/test_outbox.py::test_a_subject_that_nobody_holds_is_free_also_"
            "when_the_clock_was_set_back"
        ),
    ),
    Mutation(
        "The relay is handed only what is committed",
        "shared/inbox/finish.py",
        "            return let_in, told\n",
        "            self._committed(told)\n            return let_in, told\n",
        "tests/integration/test_finishing_together.py::test_only_what_is_committed_is_handed_to_the_relay",
    ),
    Mutation(
        "What another relay has published is not published from memory",
        "shared/outbox/subjects.py",
        "after=row.sent_sequence, until=row.last_sequence)",
        "after=row.sent_sequence - 1, until=row.last_sequence - 1)",
        (
            "tests/integration/test_outbox.py::test_what_another_relay_has_published_is_not_"
            "published_from_memory"
        ),
    ),
    Mutation(
        "Marked after the confirm",
        "shared/outbox/relay.py",
        "                await self._publish([turn.waiting[0] for turn in batch])\n",
        (
            "                for turn in batch:\n"
            "                    turn.sent.append(turn.waiting[0])\n"
            "                await self._publish([turn.waiting[0] for turn in batch])\n"
        ),
        "tests/integration/test_outbox.py::test_a_transport_that_is_away_is_waited_for",
    ),
    Mutation(
        "What came during a turn is a later turn's",
        "shared/outbox/subjects.py",
        "            return self.last_sequence\n",
        "            return self.last_sequence + 1\n",
        "tests/integration/test_outbox.py::test_an_event_committed_during_a_turn_is_not_passed_over",
    ),
    Mutation(
        "An unroutable command keeps its place",
        "shared/outbox/relay.py",
        "        turn.failed = True\n",
        "        turn.sent.append(turn.waiting.pop(0))\n",
        (
            "tests/integration/test_outbox.py::test_a_command_that_nobody_hears_waits_and_"
            "holds_its_own_subject_only"
        ),
    ),
    Mutation(
        "An unroutable command is given up after an hour",
        "shared/outbox/relay.py",
        "        if turn.attempts >= UNROUTABLE_ATTEMPTS:\n",
        "        if turn.attempts < 0:\n",
        (
            "tests/integration/test_outbox.py::"
            "test_a_command_that_nobody_hears_for_an_hour_becomes_a_dead_letter"
        ),
    ),
    Mutation(
        "What is refused for good holds up only itself",
        "shared/outbox/relay.py",
        "            self._give_up(turn, str(error))\n",
        "            turn.failed = True\n",
        (
            "tests/integration/test_outbox.py::test_what_no_transport_takes_becomes_a_dead_"
            "letter_and_its_subject_goes_on"
        ),
    ),
    Mutation(
        "Each tick has one runner in the fleet",
        "shared/runtime/scheduler.py",
        "            if await _claim(database, each.task, due_ms, worker):\n",
        "            if True:\n",
        "tests/integration/test_races.py::test_each_tick_has_one_runner_in_the_fleet",
    ),
    Mutation(
        "The token is checked just before an upload is completed",
        "services/clipper/handlers.py",
        'content_type="video/mp4", if_absent=True, owner=work.owner, before_completion=work.still_ours\n',
        'content_type="video/mp4", if_absent=True, owner=work.owner\n',
        "tests/integration/test_clip_handlers.py::test_work_that_lost_its_claim_completes_no_upload",
    ),
    Mutation(
        "A done row keeps no body",
        "shared/inbox/ending.py",
        '        "body": None,\n',
        "",
        "tests/integration/test_inbox.py::test_a_done_row_keeps_no_body",
    ),
    Mutation(
        "Of those that finish together a stale token fails alone",
        "shared/inbox/finish.py",
        "[each for each in endings if each.claim.row.id in let_in]",
        "endings",
        "tests/integration/test_finishing_together.py::test_a_stale_token_among_others_fails_alone",
    ),
    Mutation(
        "Of those that finish together a write that fails fails alone",
        "shared/inbox/together.py",
        "    if isinstance(result, BaseException):\n        return _Turn.ALONE\n",
        "    if isinstance(result, BaseException):\n        return _Turn.TOO_LATE\n",
        ("tests/integration/test_finishing_together.py::test_a_write_that_fails_never_fails_its_neighbours"),
    ),
    Mutation(
        "A bus that knows several nodes goes to the next one",
        "shared/bus/rabbitmq_link.py",
        "            self._attempts += 1\n",
        "",
        "tests/integration/test_rabbitmq.py::test_a_bus_that_knows_several_nodes_goes_to_the_next_one",
    ),
    Mutation(
        "A NACK is tried again",
        "shared/bus/rabbitmq_publisher.py",
        "                attempts=ATTEMPTS,\n",
        "                attempts=1,\n",
        ("tests/integration/test_rabbitmq.py::test_a_message_that_is_refused_for_now_is_published_again"),
    ),
    Mutation(
        "A channel that refuses all after its leader was lost is left",
        "shared/bus/rabbitmq_publisher.py",
        "        await self._renew()\n",
        "",
        "tests/anomaly/test_broken_servers.py::test_the_loss_of_the_node_that_leads_the_queue",
    ),
    *FURTHER,
)
