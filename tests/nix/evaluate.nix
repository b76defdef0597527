# What config/nix/module.nix comes to, as JSON. Of nixpkgs there is only what it uses, and that is
# as small as it can be; `nixpkgs-lib` takes the place of its lib.
{ settings, package ? "/nix/store/one", operators ? [ ], nixpkgs-lib ? null }:

let
  inherit (builtins) attrValues concatStringsSep isAttrs isList map mapAttrs toJSON;

  option = given: { is-option = true; } // given;
  anything = name: _: name;
  stub = {
    mkOption = option;
    mkEnableOption = text: option { default = false; description = text; };
    mkIf = condition: value: if condition then value else { };
    literalExpression = text: text;
    types = {
      package = "package"; bool = "bool"; str = "str"; port = "port";
      ints.positive = "positive";
      listOf = anything "list"; oneOf = anything "one of"; submodule = anything "submodule";
      either = _: _: "either";
    };
  };
  lib = if nixpkgs-lib == null then stub else import nixpkgs-lib;

  inline = value:
    if isAttrs value then
      "{ ${concatStringsSep ", " (attrValues (mapAttrs (k: v: "${toJSON k} = ${inline v}") value))} }"
    else if isList value then "[${concatStringsSep ", " (map inline value)}]"
    else toJSON value;
  toml = value:
    concatStringsSep "" (attrValues (mapAttrs (k: v: "${toJSON k} = ${inline v}\n") value));

  pkgs = {
    formats.toml = _: {
      type = if nixpkgs-lib == null then "toml" else lib.types.attrsOf lib.types.anything;
      generate = _: toml;
    };
    callPackage = _: _: throw "the package is given";
    runCommandLocal = name: _: script: "${name}: ${script}";
    writeTextDir = name: text: { inherit name text; };
  };

  given = {
    enable = true;
    checkConfig = true;
    inherit operators package;
    settings = { version = 1; } // settings;
  };

  by-hand =
    let
      made = (import ../../config/nix/module.nix { inherit config lib pkgs; }).config;
      config = { inherit (made) environment; services.tml-proxy = given; };
    in
    made;

  by-nixpkgs =
    let
      open = lib.mkOption { type = lib.types.attrsOf lib.types.anything; default = { }; };
      rest = { systemd.packages = lib.mkOption { default = [ ]; }; systemd.services = open; }
        // lib.genAttrs [ "environment" "users" ] (_: open);
      evaluated = lib.evalModules {
        specialArgs = { inherit pkgs; };
        modules = [
          ../../config/nix/module.nix
          { options = rest; }
          { services.tml-proxy = builtins.removeAttrs given [ "package" ]; }
          { services.tml-proxy.package = lib.mkForce { type = "derivation"; outPath = package; name = "p"; }; }
        ];
      };
    in
    evaluated.config;

  made = if nixpkgs-lib == null then by-hand else by-nixpkgs;
in
{
  inherit (made) environment users;
  service = made.systemd.services.tml-proxy;
  units = made.systemd.packages;
  toml = toml given.settings;
}
