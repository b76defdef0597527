# The package: pkgs.callPackage ./package.nix { }
{ lib, rustPlatform, installShellFiles, stdenv }:

let
  manifest = lib.importTOML ../../Cargo.toml;
in
rustPlatform.buildRustPackage {
  pname = manifest.package.name;
  inherit (manifest.package) version;

  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;
  buildType = "dist";

  # They want root, namespaces and other programs; `.ci/run` runs them.
  doCheck = false;

  nativeBuildInputs = [ installShellFiles ];
  # What writes man pages and completions is the program itself.
  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    mkdir man
    $out/bin/tml-proxy man man
    installManPage man/*
    installShellCompletion --cmd tml-proxy \
      --bash <($out/bin/tml-proxy completions bash) \
      --fish <($out/bin/tml-proxy completions fish) \
      --zsh <($out/bin/tml-proxy completions zsh)
  '';

  meta = {
    inherit (manifest.package) description;
    license = with lib.licenses; [ mit asl20 ];
    mainProgram = "tml-proxy";
    platforms = lib.platforms.linux;
  };
}
