-- What the proxies of a fleet tell each other. A proxy has a role that may call functions and nothing
-- else; each function looks who asks, and a name belongs to the role that was first to use it.

create schema tml_proxy;
revoke all on schema tml_proxy from public;

-- The version of the schema, and the oldest version of a program's that it still serves.
create table tml_proxy.schema (
    version integer not null,
    serves integer not null,
    applied timestamptz not null default clock_timestamp()
);

create table tml_proxy.proxy (
    name text primary key check (name ~ '^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$'),
    -- The role whose it is; empty after it was restored, and then of whoever is first.
    role text not null,
    region text not null check (region ~ '^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$'),
    version text not null check (length(version) <= 64),
    -- The process that has the name; empty once it has let go of it.
    instance text not null check (length(instance) <= 128),
    -- When it was last heard of.
    seen timestamptz not null default clock_timestamp(),
    sessions bigint not null default 0,
    -- Goes up with every change of what it publishes.
    generation bigint not null default 0,
    -- From which generation on all changes are known; whoever has an older one reads everything.
    whole bigint not null default 0,
    -- Since when it may not register, if it may not.
    fenced timestamptz
);

create table tml_proxy.endpoint (
    proxy text not null references tml_proxy.proxy on delete cascade,
    key text not null check (length(key) <= 256),
    -- That of the proxy when this was last changed.
    generation bigint not null,
    -- Null if it is gone.
    entry jsonb check (pg_column_size(entry) <= 1024),
    changed timestamptz not null default clock_timestamp(),
    primary key (proxy, key)
);
create index endpoint_by_generation on tml_proxy.endpoint (proxy, generation);
create index endpoint_gone on tml_proxy.endpoint (proxy, changed) where entry is null;

create function tml_proxy.schema_version() returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('version', version, 'serves', serves)
    from tml_proxy.schema order by version desc limit 1
$$;

-- How it stands with a proxy that asks, whose row is locked then.
create function tml_proxy.standing(the_name text, the_instance text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    found_role text;
    found_instance text;
    is_fenced boolean;
begin
    select role, instance, fenced is not null into found_role, found_instance, is_fenced
    from tml_proxy.proxy where name = the_name for update;
    return case
        when found_role is null then 'unknown'
        when is_fenced then 'fenced'
        when found_role <> session_user then 'of_another_role'
        when found_instance <> the_instance then 'taken'
        else 'member'
    end;
end
$$;

-- Gives a name to a process, unless another has it that was heard of within 15 s.
create function tml_proxy.register(
    the_name text, the_region text, the_version text, the_instance text
) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
declare
    standing text;
    silent interval;
begin
    if (select count(*) from tml_proxy.proxy) >= 1000
        and not exists (select from tml_proxy.proxy where name = the_name)
    then
        return jsonb_build_object('standing', 'full');
    end if;
    insert into tml_proxy.proxy (name, role, region, version, instance)
    values (the_name, session_user, the_region, the_version, the_instance)
    on conflict (name) do nothing;
    update tml_proxy.proxy set role = session_user where name = the_name and role = '';
    standing := tml_proxy.standing(the_name, the_instance);
    select clock_timestamp() - seen into silent from tml_proxy.proxy where name = the_name;
    if standing = 'taken' and (
        silent > interval '15 s'
        or exists (select from tml_proxy.proxy where name = the_name and instance = '')
    ) then
        standing := 'member';
    end if;
    if standing <> 'member' then
        return jsonb_build_object('standing', standing,
            'silent_ms', (extract(epoch from silent) * 1000)::bigint);
    end if;
    update tml_proxy.proxy
    set region = the_region, version = the_version, instance = the_instance,
        seen = clock_timestamp()
    where name = the_name;
    return jsonb_build_object('standing', standing,
        'generation', (select generation from tml_proxy.proxy where name = the_name));
end
$$;

-- Tells that a proxy is there, and tells it which others are.
create function tml_proxy.heartbeat(the_name text, the_instance text, the_sessions bigint)
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
            'silent_ms', greatest(0, (extract(epoch from clock_timestamp() - seen) * 1000)::bigint)
        )) from tml_proxy.proxy
    ));
end
$$;

-- Changes what a proxy publishes: entries by key, null for what is gone. `since` is the generation that
-- the proxy has reached; if `is_whole`, what is not among the changes is gone as well.
create function tml_proxy.publish(
    the_name text, the_instance text, since bigint, is_whole boolean, changes jsonb
) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
declare
    standing text := tml_proxy.standing(the_name, the_instance);
    old_generation bigint;
    new_generation bigint;
    purged bigint;
begin
    if standing <> 'member' then
        return jsonb_build_object('standing', standing);
    end if;
    select generation into old_generation from tml_proxy.proxy where name = the_name;
    -- After commits were lost, changes alone would be changes to something else.
    if not is_whole and old_generation <> since then
        return jsonb_build_object('standing', standing, 'is_behind', true, 'generation', old_generation);
    end if;
    new_generation := greatest(old_generation, since) + 1;
    if is_whole then
        delete from tml_proxy.endpoint where proxy = the_name;
    end if;
    insert into tml_proxy.endpoint (proxy, key, generation, entry)
    select the_name, key, new_generation, nullif(value, 'null'::jsonb) from jsonb_each(changes)
    where not is_whole or value <> 'null'::jsonb
    on conflict (proxy, key) do update
    set generation = excluded.generation, entry = excluded.entry, changed = clock_timestamp();
    if (select count(*) from tml_proxy.endpoint where proxy = the_name) > 70000 then
        raise exception 'more than 70000 endpoints of one proxy' using errcode = '54000';
    end if;
    with gone as (
        delete from tml_proxy.endpoint
        where proxy = the_name and entry is null and changed < clock_timestamp() - interval '10 min'
        returning generation
    ) select max(generation) into purged from gone;
    update tml_proxy.proxy
    set generation = new_generation, seen = clock_timestamp(),
        whole = greatest(whole, purged, case when is_whole then new_generation end)
    where name = the_name;
    perform pg_notify('tml_proxy', the_name);
    return jsonb_build_object('standing', standing, 'generation', new_generation);
end
$$;

-- What another proxy publishes: what has changed since a generation, or everything.
create function tml_proxy.published(the_name text, the_instance text, of_proxy text, since bigint)
returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
declare
    answer jsonb;
begin
    if not exists (
        select from tml_proxy.proxy
        where name = the_name and instance = the_instance and role = session_user and fenced is null
    ) then
        return jsonb_build_object('standing', tml_proxy.standing(the_name, the_instance));
    end if;
    -- One statement, so that the entries are those of the generation.
    select jsonb_build_object('standing', 'member', 'generation', one.generation,
        'is_whole', one.since = 0,
        'entries', (
            select jsonb_object_agg(key, entry) from tml_proxy.endpoint
            where proxy = of_proxy and endpoint.generation > one.since
                and (entry is not null or one.since > 0)
        )) into answer
    from (
        select generation, case when since between whole and generation then since else 0 end as since
        from tml_proxy.proxy where name = of_proxy
    ) one;
    return coalesce(answer, jsonb_build_object('standing', 'member', 'generation', 0,
        'is_whole', true));
end
$$;

-- Lets go of a name, and takes back what was published under it.
create function tml_proxy.leave(the_name text, the_instance text) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
declare
    standing text := tml_proxy.standing(the_name, the_instance);
begin
    if standing = 'member' then
        delete from tml_proxy.endpoint where proxy = the_name;
        update tml_proxy.proxy
        set instance = '', seen = clock_timestamp(), sessions = 0,
            generation = generation + 1, whole = generation + 1
        where name = the_name;
        perform pg_notify('tml_proxy', the_name);
    end if;
    return jsonb_build_object('standing', standing);
end
$$;

-- For operators: a proxy that is removed cannot register until it is restored.
create function tml_proxy.remove(the_name text) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
begin
    update tml_proxy.proxy
    set fenced = coalesce(fenced, clock_timestamp()), instance = '', sessions = 0,
        generation = generation + 1, whole = generation + 1
    where name = the_name;
    if not found then
        return false;
    end if;
    delete from tml_proxy.endpoint where proxy = the_name;
    -- Of no proxy's own, so that it is heard by that one too.
    perform pg_notify('tml_proxy', '');
    return true;
end
$$;

create function tml_proxy.restore(the_name text) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
begin
    update tml_proxy.proxy set fenced = null, role = '', instance = '' where name = the_name;
    return found;
end
$$;

revoke all on all tables in schema tml_proxy from public;
revoke all on all functions in schema tml_proxy from public;
insert into tml_proxy.schema (version, serves) values (1, 1);
