-- The ports that the proxies of a region share. Who has one is decided by whichever proxy leads the region,
-- and everything that could give a port to two is refused here, under the lock of the region's row.
--
-- Locks are taken in this order: region, proxy, process.

-- The only clock; a function, so that tests can have another.
create function tml_proxy.now() returns timestamptz
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select clock_timestamp()
$$;

-- How long a port goes to nobody else.
create function tml_proxy.rest(cooldown interval, holder text) returns interval
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when holder is null then cooldown else greatest(cooldown, interval '30 days') end
$$;

-- What is another one after a standby was promoted.
create function tml_proxy.timeline() returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
$$;

create table tml_proxy.region (
    name text primary key check (name ~ '^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$'),
    -- Goes up with every change of its ports.
    generation bigint not null default 0,
    -- The process that leads, until when, and a number that no leader before it had.
    leader text,
    leader_instance text,
    until timestamptz,
    term bigint not null default 0,
    -- Another one after commits were lost, which is seen by the timeline or by a proxy that knows more.
    epoch uuid not null default gen_random_uuid(),
    timeline text not null default tml_proxy.timeline(),
    -- What was written up to here may not be what proxies serve: commits were lost, and not everybody has
    -- asserted yet.
    lost bigint not null default 0,
    -- What the leader has told.
    cooldown interval not null default interval '10 min',
    counts jsonb check (pg_column_size(counts) <= 512)
);

-- Rows are never deleted, so that whoever has read a generation finds every change since.
create table tml_proxy.port (
    region text not null references tml_proxy.region on delete cascade,
    port integer not null check (port between 1 and 65535),
    -- That of the region when this was last changed.
    generation bigint not null,
    -- Whose it is, where its sessions go, and since when.
    owner text check (length(owner) <= 200),
    target text check (length(target) <= 100),
    since timestamptz,
    -- Who had it last and when that ended, while nobody else may have it yet.
    left_by text,
    released timestamptz,
    -- What holds it beyond its owner: whoever has the same holder may have it next at once, others only after
    -- a long time.
    holder text check (length(holder) <= 200),
    -- When a proxy could not bind it.
    blocked timestamptz,
    -- The process that has it beforehand, for jobs that come while it cannot ask. When that process is gone,
    -- it rests without anybody having left it.
    reserved_by text,
    reserved_instance text,
    primary key (region, port),
    check ((owner is null) = (target is null) and (owner is null) = (since is null)),
    check (owner is null or released is null and blocked is null),
    check (holder is null or owner is not null or left_by is not null),
    check ((reserved_by is null) = (reserved_instance is null)),
    check (reserved_by is null or owner is null and released is null and blocked is null)
);
create unique index port_by_owner on tml_proxy.port (region, owner) where owner is not null;
create index port_by_generation on tml_proxy.port (region, generation);
create index port_resting on tml_proxy.port (region) where released is not null;
create index port_reserved on tml_proxy.port (region) where reserved_by is not null;

-- Processes that may have ports of a region open: until their lease is over, whoever has the name now.
create table tml_proxy.process (
    proxy text not null references tml_proxy.proxy on delete cascade,
    instance text not null check (length(instance) <= 128),
    region text not null references tml_proxy.region on delete cascade,
    seen timestamptz not null,
    lease interval not null check (lease between interval '1 s' and interval '31 d'),
    -- The generation as of which everything is closed that was to be closed.
    applied bigint not null default 0,
    -- That of the region when it told what it serves.
    epoch uuid,
    primary key (proxy, instance, region)
);
create index process_by_region on tml_proxy.process (region);

-- What a process that ends, is removed, or was started again on the same machine had open is closed.
create function tml_proxy.forget_processes() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from tml_proxy.process
    where proxy = new.name and (
        new.fenced is not null
        or new.instance = '' and instance = old.instance
        or new.instance <> instance and split_part(new.instance, '/', 1) = split_part(instance, '/', 1)
    );
    return null;
end
$$;
create trigger forget_processes after update of instance, fenced on tml_proxy.proxy
for each row when (new.instance <> old.instance or new.fenced is not null)
execute function tml_proxy.forget_processes();

-- The row of a region, locked. If commits were lost since whoever asks knew that generation of that
-- epoch, everything that is measured by time begins anew.
create function tml_proxy.region_locked(the_region text, the_epoch text, knows bigint)
returns tml_proxy.region
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_row tml_proxy.region;
    known constant bigint := least(knows, 1::bigint << 60);
begin
    -- What was acknowledged must not be lost without another timeline.
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    select * into found_row from tml_proxy.region where name = the_region for update;
    if found_row.name is null then
        if (select count(*) from tml_proxy.region) >= 1000 then
            raise exception 'the fleet has 1000 regions and takes no more' using errcode = '54000';
        end if;
        insert into tml_proxy.region (name) values (the_region) on conflict do nothing;
        select * into found_row from tml_proxy.region where name = the_region for update;
    end if;
    if found_row.timeline <> tml_proxy.timeline()
        or found_row.epoch::text = the_epoch and known > found_row.generation
    then
        update tml_proxy.region
        set timeline = tml_proxy.timeline(), epoch = gen_random_uuid(),
            generation = greatest(generation, known) + 1, lost = greatest(generation, known) + 1,
            leader = null, leader_instance = null, until = null,
            -- Not one that was given before and lost.
            term = term + 1 + floor(random() * (1 << 30))::bigint
        where name = the_region returning * into found_row;
        update tml_proxy.port
        set released = tml_proxy.now(),
            blocked = case when blocked is not null then tml_proxy.now() end
        where region = the_region and released is not null;
        update tml_proxy.process set seen = tml_proxy.now(), applied = 0 where region = the_region;
        perform tml_proxy.region_tell(found_row);
    end if;
    return found_row;
end
$$;

-- Wakes everybody in a region.
create function tml_proxy.region_tell(the_region tml_proxy.region) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select pg_notify('tml_proxy_region', (the_region).name || ' ' || (the_region).generation)
$$;

-- The generation as of which everybody who may have ports open has closed what was to be closed.
create function tml_proxy.region_confirmed(the_region tml_proxy.region) returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select coalesce(min(case when epoch = (the_region).epoch then applied else 0 end), (the_region).generation)
    from tml_proxy.process where region = (the_region).name and seen + lease > tml_proxy.now()
$$;

-- Whether everybody who may have ports open has told which, since commits were lost for the last time.
create function tml_proxy.region_is_settled(the_region tml_proxy.region) returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select not exists (
        select from tml_proxy.process
        where region = (the_region).name and seen + lease > tml_proxy.now()
            and epoch is distinct from (the_region).epoch
    )
$$;

-- Whether a process leads a region.
create function tml_proxy.region_leads(the_region tml_proxy.region, the_name text, the_instance text)
returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    -- A time too far ahead is of another clock.
    select coalesce((the_region).leader = the_name and (the_region).leader_instance = the_instance
        and (the_region).until > tml_proxy.now()
        and (the_region).until <= tml_proxy.now() + interval '6 s', false)
        and exists (
            select from tml_proxy.process
            where proxy = the_name and instance = the_instance and region = (the_region).name
        )
$$;

-- Does what is due: what was uncertain is certain once everybody has asserted, what has rested is free.
create function tml_proxy.region_tidied(the_region tml_proxy.region) returns tml_proxy.region
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    confirmed constant bigint := tml_proxy.region_confirmed(the_region);
    next constant bigint := the_region.generation + 1;
    has_changed boolean;
begin
    if not tml_proxy.region_is_settled(the_region) then
        return the_region;
    end if;
    update tml_proxy.port set generation = next
    where region = the_region.name and generation <= the_region.lost;
    has_changed := found;
    -- Whoever had it may have given it to a job.
    update tml_proxy.port
    set generation = next, reserved_by = null, reserved_instance = null, released = tml_proxy.now()
    where region = the_region.name and reserved_by is not null and not exists (
        select from tml_proxy.process
        where proxy = reserved_by and instance = reserved_instance
            and process.region = the_region.name and seen + lease > tml_proxy.now()
    );
    has_changed := has_changed or found;
    update tml_proxy.port
    set generation = next, left_by = null, released = null, blocked = null, holder = null
    where region = the_region.name and released is not null
        and released + tml_proxy.rest(the_region.cooldown, holder) <= tml_proxy.now() and generation <= confirmed
        and (blocked is null or blocked + interval '10 min' <= tml_proxy.now());
    if found or has_changed then
        update tml_proxy.region set generation = next where name = the_region.name
        returning * into the_region;
        perform tml_proxy.region_tell(the_region);
    end if;
    return the_region;
end
$$;

-- What has changed of a region's ports since a generation, for a process of a proxy; what is uncertain is told
-- by nobody.
create function tml_proxy.region_rows(
    the_region text, since bigint, the_name text, the_instance text
) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('epoch', one.epoch, 'generation', one.generation, 'rows', (
        select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
            'port', port, 'generation', port.generation, 'owner', owner, 'target', target,
            'since_ms', (extract(epoch from port.since) * 1000)::bigint,
            'left_by', left_by, 'holder', holder, 'is_blocked', case when blocked is not null then true end,
            'is_resting', case when released is not null then true end,
            'reserved', case
                when reserved_by is null then null
                when reserved_by = the_name and reserved_instance = the_instance then 'own'
                else 'other'
            end
        ))), '[]'::jsonb)
        from tml_proxy.port
        where region = one.name and port.generation > greatest(one.lost, region_rows.since)
    ))
    from tml_proxy.region one where one.name = the_region
$$;

-- What the leader has told of a region's ports in numbers with its last heartbeat or change, with those that were
-- reserved or given back since.
create function tml_proxy.region_counts(the_region tml_proxy.region) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select case
        when jsonb_typeof(counts->'free') = 'number' and jsonb_typeof(counts->'reserved') = 'number' then
            counts || jsonb_build_object('reserved', now.reserved, 'free', greatest(0, trunc(
                (counts->>'free')::numeric + (counts->>'reserved')::numeric - now.reserved)))
        else counts
    end
    from (
        select (the_region).counts, count(*) as reserved from tml_proxy.port
        where region = (the_region).name and reserved_by is not null
    ) now
$$;

-- The region of a member who asks; null if it is none.
create function tml_proxy.region_of(the_name text, the_instance text) returns text
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select region from tml_proxy.proxy
    where name = the_name and instance = the_instance and role = session_user and fenced is null
$$;

-- The row of the region of a member who asks, locked; nothing for anybody else.
create function tml_proxy.region_entered(the_name text, the_instance text, the_epoch text, knows bigint)
returns tml_proxy.region
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    the_region constant text := tml_proxy.region_of(the_name, the_instance);
    one tml_proxy.region;
begin
    if the_region is not null then
        one := tml_proxy.region_locked(the_region, the_epoch, knows);
        -- It may have been removed, or be in another region, since.
        if tml_proxy.standing(the_name, the_instance) = 'member'
            and tml_proxy.region_of(the_name, the_instance) = the_region
        then
            return one;
        end if;
    end if;
    return null;
end
$$;

-- What is said to whoever has no such row.
create function tml_proxy.region_refusal(the_name text, the_instance text) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('standing',
        coalesce(nullif(tml_proxy.standing(the_name, the_instance), 'member'), 'unknown'))
$$;

-- Tells that a process is there, for how long it goes on without an answer, what it knows and which
-- generation is in force there; gives it the lease of who leads, if it follows and nobody has that.
create function tml_proxy.region_beat(
    the_name text, the_instance text, lease_ms bigint, the_epoch text, knows bigint, has_applied bigint,
    follows boolean, the_counts jsonb
) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
declare
    one tml_proxy.region;
    own tml_proxy.process;
    leads boolean;
    is_led boolean;
begin
    one := tml_proxy.region_entered(the_name, the_instance, the_epoch, knows);
    if one.name is null then
        return tml_proxy.region_refusal(the_name, the_instance);
    end if;
    -- Who knows nothing serves nothing, and has nothing to assert.
    insert into tml_proxy.process as process (proxy, instance, region, seen, lease, epoch)
    values (the_name, the_instance, one.name, tml_proxy.now(), lease_ms * interval '1 ms',
        case when knows = 0 then one.epoch end)
    on conflict (proxy, instance, region) do update
    set seen = excluded.seen,
        lease = excluded.lease,
        applied = case
            when the_epoch = one.epoch::text then least(has_applied, one.generation)
            else 0
        end
    returning * into own;
    leads := tml_proxy.region_leads(one, the_name, the_instance);
    is_led := leads or tml_proxy.region_leads(one, one.leader, one.leader_instance);
    if follows and not is_led then
        update tml_proxy.region
        set leader = the_name, leader_instance = the_instance, term = term + 1
        where name = one.name returning * into one;
        leads := true;
    end if;
    if leads then
        update tml_proxy.region
        set until = case when follows then tml_proxy.now() + interval '6 s' end,
            counts = coalesce(the_counts, counts)
        where name = one.name returning * into one;
        leads := follows;
        delete from tml_proxy.process
        where region = one.name and seen + lease < tml_proxy.now() - interval '1 d';
    end if;
    one := tml_proxy.region_tidied(one);
    return jsonb_build_object('standing', 'member', 'epoch', one.epoch, 'generation', one.generation,
        'is_asserted', own.epoch is not distinct from one.epoch,
        'term', case when leads then one.term end,
        'leader', case when leads or is_led then one.leader end,
        'is_short', coalesce(tml_proxy.region_counts(one)->'free' = '0', false));
end
$$;

-- What has changed of the ports of its region since a generation of that epoch.
create function tml_proxy.region_map(the_name text, the_instance text, since bigint) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
declare
    the_region constant text := tml_proxy.region_of(the_name, the_instance);
begin
    if the_region is null then
        return tml_proxy.region_refusal(the_name, the_instance);
    end if;
    return jsonb_build_object('standing', 'member') || coalesce(
        tml_proxy.region_rows(the_region, since, the_name, the_instance), jsonb_build_object('generation', 0));
end
$$;

-- Changes of ports, of which each has an owner, and a target unless the owner gives it back. They are all
-- refused unless that process leads with that term; otherwise each is done or refused for itself. The
-- answer has what has changed since `since`, these included.
create function tml_proxy.region_write(
    the_name text, the_instance text, the_epoch text, since bigint, the_term bigint,
    cooldown_ms bigint, the_counts jsonb, changes jsonb
) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
declare
    one tml_proxy.region;
    is_settled boolean;
    confirmed bigint;
    next bigint;
    has_changed boolean := false;
    wanted record;
    row tml_proxy.port;
    has integer;
    refused jsonb := '[]';
    why text;
begin
    one := tml_proxy.region_entered(the_name, the_instance, the_epoch, since);
    if one.name is null then
        return tml_proxy.region_refusal(the_name, the_instance);
    end if;
    if one.term <> the_term or not tml_proxy.region_leads(one, the_name, the_instance) then
        return jsonb_build_object('standing', 'member', 'is_deposed', true);
    end if;
    update tml_proxy.region
    set cooldown = cooldown_ms * interval '1 ms', counts = coalesce(the_counts, counts)
    where name = one.name returning * into one;
    one := tml_proxy.region_tidied(one);
    is_settled := tml_proxy.region_is_settled(one);
    confirmed := tml_proxy.region_confirmed(one);
    next := one.generation + 1;

    -- What is given back comes first, the rest in its order.
    for wanted in
        select * from rows from (
            jsonb_to_recordset(changes) as (port integer, owner text, holder text, target text)
        ) with ordinality as c(port, owner, holder, target, place)
        order by c.target is not null, c.place
    loop
        select * into row from tml_proxy.port where region = one.name and port = wanted.port;
        if wanted.target is null then
            if row.owner = wanted.owner and row.generation > one.lost then
                update tml_proxy.port
                set owner = null, target = null, since = null, generation = next,
                    left_by = owner, released = tml_proxy.now()
                where region = one.name and port = wanted.port;
                has_changed := true;
            end if;
            continue;
        end if;
        select case when generation > one.lost then port end into has
        from tml_proxy.port where region = one.name and owner = wanted.owner;
        if has = wanted.port then
            if row.target <> wanted.target then
                update tml_proxy.port set target = wanted.target, generation = next
                where region = one.name and port = wanted.port;
                has_changed := true;
            end if;
            continue;
        end if;
        why := case
            when has is not null then 'has_port'
            when not is_settled and (
                row.left_by is distinct from wanted.owner or row.generation <= one.lost
            ) then 'unsettled'
            when row.owner is not null then 'taken'
            when row.reserved_by is not null then 'reserved'
            when row.blocked + interval '10 min' > tml_proxy.now() then 'blocked'
            -- That of the same holder leads to the same place wherever it is open yet.
            when row.released is not null and row.left_by is distinct from wanted.owner
                and (row.holder = wanted.holder) is not true
                and not (
                    row.released + tml_proxy.rest(one.cooldown, row.holder) <= tml_proxy.now()
                    and row.generation <= confirmed
                )
            then 'cooling'
        end;
        if why is not null then
            refused := refused || jsonb_strip_nulls(jsonb_build_object('port', wanted.port,
                'owner', wanted.owner, 'why', why, 'by', row.owner, 'has', has));
            continue;
        end if;
        insert into tml_proxy.port (region, port, generation, owner, holder, target, since)
        values (one.name, wanted.port, next, wanted.owner, wanted.holder, wanted.target, tml_proxy.now())
        on conflict (region, port) do update
        set generation = excluded.generation, owner = excluded.owner, holder = excluded.holder,
            target = excluded.target, since = excluded.since, left_by = null, released = null, blocked = null;
        has_changed := true;
    end loop;

    if has_changed then
        update tml_proxy.region set generation = next where name = one.name returning * into one;
        perform tml_proxy.region_tell(one);
    end if;
    return jsonb_build_object('standing', 'member', 'refused', refused)
        || tml_proxy.region_rows(one.name, since, the_name, the_instance);
end
$$;

-- Takes a port from its owner because a process could not bind it, unless it has changed since.
create function tml_proxy.region_block(
    the_name text, the_instance text, the_epoch text, the_port integer, the_generation bigint
) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
declare
    one tml_proxy.region;
begin
    one := tml_proxy.region_entered(the_name, the_instance, null, 0);
    if one.name is null then
        return tml_proxy.region_refusal(the_name, the_instance);
    end if;
    update tml_proxy.port
    set owner = null, target = null, since = null, generation = one.generation + 1,
        left_by = owner, released = tml_proxy.now(), blocked = tml_proxy.now(),
        -- Nobody holds what is of no use.
        holder = null
    where region = one.name and port = the_port and generation = the_generation
        and generation > one.lost and one.epoch::text = the_epoch and owner is not null;
    if found then
        update tml_proxy.region set generation = generation + 1
        where name = one.name returning * into one;
        perform tml_proxy.region_tell(one);
    end if;
    return jsonb_build_object('standing', 'member');
end
$$;

-- Tells what a process serves, after commits were lost. A port is its owner's again where what the
-- database has of both is older; what it has lost is in the answer.
create function tml_proxy.region_assert(
    the_name text, the_instance text, the_epoch text, knows bigint, entries jsonb
) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
declare
    one tml_proxy.region;
    next bigint;
    entry record;
    row tml_proxy.port;
    other tml_proxy.port;
    lost jsonb := '[]';
begin
    one := tml_proxy.region_entered(the_name, the_instance, null, 0);
    if one.name is null then
        return tml_proxy.region_refusal(the_name, the_instance);
    end if;
    if one.epoch::text is distinct from the_epoch or not exists (
        select from tml_proxy.process
        where proxy = the_name and instance = the_instance and region = one.name
            and epoch is distinct from one.epoch
    ) then
        return jsonb_build_object('standing', 'member', 'is_behind', true);
    end if;
    next := greatest(one.generation, least(knows, 1::bigint << 60)) + 1;
    for entry in
        select * from jsonb_to_recordset(entries)
            as e(port integer, owner text, holder text, target text, since_ms bigint, generation bigint)
        order by generation, port
    loop
        select * into row from tml_proxy.port where region = one.name and port = entry.port;
        -- One that it has beforehand.
        if entry.owner is null then
            if row.reserved_by = the_name and row.reserved_instance = the_instance
                or row.port is null or row.generation <= one.lost and row.generation < entry.generation
            then
                insert into tml_proxy.port (region, port, generation, reserved_by, reserved_instance)
                values (one.name, entry.port, next, the_name, the_instance)
                on conflict (region, port) do update
                set generation = excluded.generation, owner = null, holder = null, target = null, since = null,
                    left_by = null, released = null, blocked = null,
                    reserved_by = excluded.reserved_by, reserved_instance = excluded.reserved_instance;
            else
                lost := lost || jsonb_strip_nulls(jsonb_build_object('port', entry.port,
                    'why', case when row.owner is null then 'cooling' else 'taken' end, 'by', row.owner));
            end if;
            continue;
        end if;
        select * into other from tml_proxy.port
        where region = one.name and owner = entry.owner and port <> entry.port;
        if row.owner = entry.owner then
            if row.generation <= one.lost then
                update tml_proxy.port set generation = next,
                    target = case when entry.generation > generation then entry.target else target end
                where region = one.name and port = entry.port;
            end if;
        elsif (row.port is null or row.generation <= one.lost and row.generation < entry.generation)
            and (other.port is null
                or other.generation <= one.lost and other.generation < entry.generation)
        then
            update tml_proxy.port
            set owner = null, target = null, since = null, generation = next,
                left_by = owner, released = tml_proxy.now()
            where region = one.name and port = other.port;
            insert into tml_proxy.port (region, port, generation, owner, holder, target, since)
            values (one.name, entry.port, next, entry.owner, entry.holder, entry.target,
                to_timestamp(entry.since_ms / 1000.0))
            on conflict (region, port) do update
            set generation = excluded.generation, owner = excluded.owner, holder = excluded.holder,
                target = excluded.target, since = excluded.since, left_by = null, released = null, blocked = null,
                reserved_by = null, reserved_instance = null;
        else
            lost := lost || jsonb_strip_nulls(jsonb_build_object('port', entry.port,
                'owner', entry.owner, 'why', case when row.owner is null then 'cooling' else 'taken' end,
                'by', row.owner, 'has', other.port));
        end if;
    end loop;
    -- What it does not have any more it may have given to a job.
    update tml_proxy.port
    set generation = next, reserved_by = null, reserved_instance = null, released = tml_proxy.now()
    where region = one.name and reserved_by = the_name and reserved_instance = the_instance
        and generation <= one.lost;
    update tml_proxy.process set epoch = one.epoch, applied = 0, seen = tml_proxy.now()
    where proxy = the_name and instance = the_instance and region = one.name;
    update tml_proxy.region set generation = next where name = one.name returning * into one;
    perform tml_proxy.region_tell(one);
    perform tml_proxy.region_tidied(one);
    return jsonb_build_object('standing', 'member', 'refused', lost);
end
$$;

-- Tells what has become of ports that a process had beforehand: whose one is that it gave to a job, who has left
-- one whose job has ended or that could not be bound, which all are to leave alone if it says so, or, with neither,
-- that it was not used and is given back. A job has that port from then on unless it has one already, or its holder:
-- then it only rests. Then the process gets more of them, up to `most`,
-- out of those ranges, but never more than it leaves to jobs.
create function tml_proxy.region_reserve(
    the_name text, the_instance text, the_epoch text, used jsonb, ranges jsonb, most integer
) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
declare
    one tml_proxy.region;
    next bigint;
    has_changed boolean := false;
    entry record;
    has integer;
    is_given boolean;
    refused jsonb := '[]';
begin
    one := tml_proxy.region_entered(the_name, the_instance, null, 0);
    if one.name is null then
        return tml_proxy.region_refusal(the_name, the_instance);
    end if;
    if one.epoch::text is distinct from the_epoch or not exists (
        select from tml_proxy.process
        where proxy = the_name and instance = the_instance and region = one.name
            and epoch = one.epoch and seen + lease > tml_proxy.now()
    ) then
        return jsonb_build_object('standing', 'member', 'is_behind', true);
    end if;
    next := one.generation + 1;
    for entry in
        select * from jsonb_to_recordset(used)
            as u(port integer, owner text, holder text, target text, since_ms bigint, is_blocked boolean)
        order by since_ms, port
    loop
        select port into has from tml_proxy.port
        where region = one.name and (owner = entry.owner or holder = entry.holder)
        order by owner = entry.owner desc limit 1;
        is_given := entry.target is not null and has is null;
        update tml_proxy.port
        set generation = next, reserved_by = null, reserved_instance = null,
            owner = case when is_given then entry.owner end,
            holder = case when is_given then entry.holder end,
            target = case when is_given then entry.target end,
            since = case when is_given then to_timestamp(entry.since_ms / 1000.0) end,
            -- It is not the one that its job goes back to, unless that has no other.
            left_by = case when not is_given and has is null then entry.owner end,
            released = case when not is_given and entry.owner is not null then tml_proxy.now() end,
            blocked = case when not is_given and entry.is_blocked then tml_proxy.now() end
        where region = one.name and port = entry.port
            and reserved_by = the_name and reserved_instance = the_instance;
        has_changed := has_changed or found;
        -- It may have been told before.
        if entry.target is not null and has is distinct from entry.port and not (found and is_given) then
            refused := refused || jsonb_strip_nulls(jsonb_build_object('port', entry.port, 'owner', entry.owner,
                'why', case when has is null then 'cooling' else 'has_port' end, 'has', has));
        end if;
    end loop;
    if most > 0 and tml_proxy.region_is_settled(one) then
        with free as (
            select port from jsonb_array_elements(ranges) as range,
                generate_series(greatest((range->>0)::integer, 1), least((range->>1)::integer, 65535)) as port
            except
            select port from tml_proxy.port
            where region = one.name
                and (owner is not null or released is not null or blocked is not null or reserved_by is not null)
        ), own as (
            select count(*) as count from tml_proxy.port
            where region = one.name and reserved_by = the_name and reserved_instance = the_instance
        )
        insert into tml_proxy.port (region, port, generation, reserved_by, reserved_instance)
        select one.name, port, next, the_name, the_instance from free order by port desc
        limit (
            select greatest(0, least(most - own.count, ((select count(*) from free) - own.count) / 2)) from own
        )
        on conflict (region, port) do update
        set generation = excluded.generation, left_by = null,
            reserved_by = excluded.reserved_by, reserved_instance = excluded.reserved_instance;
        has_changed := has_changed or found;
    end if;
    if has_changed then
        update tml_proxy.region set generation = next where name = one.name returning * into one;
        perform tml_proxy.region_tell(one);
    end if;
    return jsonb_build_object('standing', 'member', 'refused', refused);
end
$$;

-- The same with what is to be seen of regions.
create or replace function tml_proxy.heartbeat(the_name text, the_instance text, the_sessions bigint)
returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
declare
    standing text := tml_proxy.standing(the_name, the_instance);
begin
    if standing <> 'member' then
        return jsonb_build_object('standing', standing);
    end if;
    update tml_proxy.proxy set seen = clock_timestamp(), sessions = the_sessions
    where name = the_name;
    return jsonb_build_object('standing', standing, 'proxies', (
        select jsonb_agg(jsonb_build_object(
            'name', name, 'region', region, 'version', version, 'sessions', sessions,
            'generation', generation, 'has_left', instance = '', 'is_fenced', fenced is not null,
            'silent_ms', greatest(0, (extract(epoch from clock_timestamp() - seen) * 1000)::bigint),
            'applied', (
                select process.applied from tml_proxy.process
                where process.proxy = name and process.instance = proxy.instance
                    and process.region = proxy.region
            )
        )) from tml_proxy.proxy
    ), 'regions', (
        select coalesce(jsonb_agg(jsonb_build_object(
            'name', name, 'generation', generation, 'counts', tml_proxy.region_counts(region),
            'leader', case when tml_proxy.region_leads(region, leader, leader_instance) then leader end,
            'is_settled', tml_proxy.region_is_settled(region)
        )), '[]'::jsonb) from tml_proxy.region
    ));
end
$$;

revoke all on all tables in schema tml_proxy from public;
revoke all on all functions in schema tml_proxy from public;
insert into tml_proxy.schema (version, serves) values (2, 1);
