# services.tml-proxy for NixOS: imports = [ /path/to/config/nix/module.nix ];
#
# A changed configuration is a reload, and a new package an upgrade: neither ends a session. That
# takes a unit whose text does not change with the package or with nixpkgs, which is why nothing in
# it may name a path in the store.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkEnableOption mkIf mkOption types;
  cfg = config.services.tml-proxy;
  format = pkgs.formats.toml { };

  written = format.generate "tml-proxy.toml" cfg.settings;
  checked = pkgs.runCommandLocal "tml-proxy.toml" { } ''
    ${cfg.package}/bin/tml-proxy check --config ${written}
    cp ${written} $out
  '';

  # Stays where it is when the package changes.
  program = "/run/current-system/sw/bin/tml-proxy";
  unit = pkgs.writeTextDir "lib/systemd/system/tml-proxy.service" (
    builtins.replaceStrings
      [ "ExecStart=tml-proxy " "ExecReload=tml-proxy reload\n" ]
      [
        "ExecStart=${program} "
        "ExecReload=${program} upgrade --if-changed\nExecReload=${program} reload\n"
      ]
      (builtins.readFile ../systemd/tml-proxy.service)
  );
in
{
  options.services.tml-proxy = {
    enable = mkEnableOption "tml-proxy, a TCP port forwarder";

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The package to run.";
    };

    settings = mkOption {
      default = { };
      description = ''
        The configuration, as `tml-proxy.toml(5)` describes it. Other keys than those below are
        written as they are.
      '';
      example = lib.literalExpression ''
        {
          targets.allow = [ "fd9d:773b:e6f8::/48" ];
          mapping = [
            { name = "board-14"; listen = 22014; target = "[fd9d:773b:e6f8:cafe::14]:22"; }
          ];
        }
      '';
      type = types.submodule {
        freeformType = format.type;
        options = {
          version = mkOption {
            type = types.ints.positive;
            default = 1;
            description = "The version of the file's format.";
          };
          mapping = mkOption {
            default = [ ];
            description = "What is forwarded where.";
            type = types.listOf (types.submodule {
              freeformType = format.type;
              options = {
                name = mkOption {
                  type = types.str;
                  description = "What the log, the metrics and commands call it.";
                };
                listen = mkOption {
                  type = types.oneOf [
                    types.port
                    types.str
                    (types.listOf (types.either types.port types.str))
                  ];
                  example = "203.0.113.7:22100-22199";
                  description = "Ports, ranges of ports, and addresses with either.";
                };
              };
            });
          };
        };
      };
    };

    checkConfig = mkOption {
      type = types.bool;
      default = true;
      description = "Whether a configuration that is not valid fails the build.";
    };

    operators = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "maria" ];
      description = "Users who may use the admin socket.";
    };
  };

  config = mkIf cfg.enable {
    environment.etc."tml-proxy/tml-proxy.toml".source =
      if cfg.checkConfig then checked else written;
    # For its commands, and for the path that the unit names.
    environment.systemPackages = [ cfg.package ];

    users.users.tml-proxy = {
      isSystemUser = true;
      group = "tml-proxy";
    };
    users.groups.tml-proxy.members = cfg.operators;

    systemd.packages = [ unit ];
    systemd.services.tml-proxy = {
      overrideStrategy = "asDropin";
      wantedBy = [ "multi-user.target" ];
      reloadTriggers = [ config.environment.etc."tml-proxy/tml-proxy.toml".source cfg.package ];
      # If the unit does change: a restart, in which clients wait, and not a stop with a start later.
      stopIfChanged = false;
      # These would put paths of coreutils, locales and time zones into the unit.
      enableDefaultPath = false;
      environment = {
        LOCALE_ARCHIVE = null;
        TZDIR = null;
      };
    };
  };
}
