//! Images: imported, pulled, unpacked without a way out, shared by containers, removed.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tar::EntryType;
use terrarium_tests::image::{Image, Layer, Registry, base, compressed, digest};
use terrarium_tests::process::Outcome;
use terrarium_tests::{TestBed, require};

/// Imports `image` under `name` and gives the outcome.
fn import(bed: &TestBed, image: &Image, name: &str) -> Outcome {
    let layout = bed.folder().join(format!("layout-{name}"));
    image.write_layout(&layout, &format!("localhost/{name}:latest"));
    bed.run(["image".as_ref(), "import".as_ref(), layout.as_os_str()])
}

fn busybox() -> Image {
    Image::new(vec![base()], &json!({"Cmd": ["/bin/sh"]}))
}

/// Runs `words` in a container of the image `name`.
fn run(bed: &TestBed, name: &str, options: &[&str], words: &[&str]) -> Outcome {
    bed.container("c").with(options.iter().copied()).rootfs(name).run(words)
}

/// The folder of the layer with these bytes.
fn layer(bed: &TestBed, bytes: &[u8]) -> PathBuf {
    bed.images().join("layers").join(digest(bytes).trim_start_matches("sha256:"))
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn every_form_of_image_file_is_imported_and_runs() {
    require!(Root, Program("busybox"), Program("gzip"));
    let bed = TestBed::new();
    let image = busybox();
    assert_eq!(import(&bed, &image, "layout").success(), "localhost/layout:latest\n");
    let write = |name: &str, bytes: &[u8]| {
        let path = bed.folder().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let saved = write("saved.tar", &image.docker_archive("team/saved:1"));
    assert_eq!(bed.run(["image", "import", &saved]).success(), "localhost/team/saved:1\n");
    let gzipped = compressed("gzip", &image.docker_archive("zipped:2"));
    let gzipped = write("saved.tar.gz", &gzipped);
    assert_eq!(bed.run(["image", "import", &gzipped]).success(), "localhost/zipped:2\n");
    let rootfs = write("rootfs.tar.gz", &compressed("gzip", &base()));
    let named = bed.run(["image", "import", &rootfs, "plain-files"]).success();
    assert_eq!(named, "localhost/plain-files:latest\n");
    for name in ["layout", "team/saved:1", "zipped:2", "plain-files"] {
        let said = run(&bed, name, &[], &["/bin/sh", "-c", "echo from $0", name]).success();
        assert_eq!(said, format!("from {name}\n"));
    }
    // One layer, unpacked once.
    assert_eq!(files_in(&bed.images().join("layers")).len(), 1);
    let list: Value =
        serde_json::from_str(&bed.run(["image", "list", "--format", "json"]).success()).unwrap();
    assert_eq!(list.as_array().map(Vec::len), Some(4));
}

#[test]
fn an_image_says_what_runs_as_whom_and_where() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let config = json!({
        "Entrypoint": ["/bin/sh", "-c", "echo $GREETING $0 $1; id -un; pwd"],
        "Cmd": ["zero", "one"],
        "Env": ["GREETING=hello", "PATH=/bin", "HOME"],
        "User": "app",
        "WorkingDir": "/tmp",
        "StopSignal": "SIGINT",
        "Labels": {"of": "the image"},
    });
    import(&bed, &Image::new(vec![base()], &config), "says").success();
    assert_eq!(run(&bed, "says", &[], &[]).success(), "hello zero one\napp\n/tmp\n");
    let options = ["--env", "GREETING=bye", "--user", "0", "--workdir", "/"];
    assert_eq!(run(&bed, "says", &options, &["mine"]).success(), "bye mine\nroot\n/\n");
}

#[test]
fn what_a_layer_deletes_is_gone_and_what_it_hides_is_hidden() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let lower = Layer::new()
        .file("etc/gone", 0o644, b"x")
        .folder("data/")
        .file("data/old", 0o644, b"x")
        .file("kept", 0o644, b"lower")
        .bytes();
    let upper = Layer::new()
        .file("etc/.wh.gone", 0o644, b"")
        .folder("data/")
        .file("data/.wh..wh..opq", 0o644, b"")
        .file("data/new", 0o644, b"x")
        .file("kept", 0o640, b"upper")
        .bytes();
    import(&bed, &Image::new(vec![base(), lower, upper], &json!({})), "layers").success();
    let script = "ls /data; cat /kept; echo; test -e /etc/gone || echo gone";
    assert_eq!(
        run(&bed, "layers", &[], &["/bin/sh", "-c", script]).success(),
        "new\nupper\ngone\n"
    );
}

#[test]
fn owners_modes_links_and_attributes_are_the_layers() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    // capability: version 2, effective, CAP_NET_RAW.
    let mut capability = [0_u8; 20];
    capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 0x20, 0, 0]);
    let top = Layer::new()
        .entry(EntryType::Regular, "bin/su", "", 0o4755, 0, b"#!")
        .entry(EntryType::Regular, "owned", "", 0o640, 7, b"x")
        .entry(EntryType::Link, "linked", "owned", 0o640, 7, b"")
        .entry(EntryType::Fifo, "pipe", "", 0o600, 0, b"")
        .entry(EntryType::Char, "null", "", 0o666, 0, b"")
        .attribute("security.capability", &capability)
        .file("capable", 0o755, b"x")
        .attribute("trusted.overlay.redirect", b"/etc")
        .folder("redirected/")
        .bytes();
    import(&bed, &Image::new(vec![base(), top.clone()], &json!({})), "dressed").success();
    let folder = layer(&bed, &top);
    let stat = |name: &str| fs::symlink_metadata(folder.join(name)).unwrap();
    assert_eq!(stat("bin/su").mode() & 0o7777, 0o4755);
    assert_eq!((stat("owned").uid(), stat("owned").gid()), (7, 7));
    assert_eq!(stat("owned").mtime(), 1_000_000_000);
    assert_eq!(stat("owned").ino(), stat("linked").ino());
    assert!(stat("pipe").file_type().is_fifo());
    // Device nodes are left out: a container gets its own.
    assert!(!folder.join("null").exists());
    let attributes = |name: &str| {
        let mut names = vec![0_u8; 4096];
        let path = std::ffi::CString::new(folder.join(name).display().to_string()).unwrap();
        // SAFETY: path is a C string and names has the length that is given.
        let n = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
        String::from_utf8_lossy(&names[..usize::try_from(n).unwrap()]).into_owned()
    };
    assert!(attributes("capable").contains("security.capability"));
    assert!(!attributes("redirected").contains("overlay"), "a layer redirected a folder");
}

#[test]
fn no_layer_writes_outside_of_its_folder() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let outside = bed.folder().join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.display().to_string();
    let far = format!("../../../../../../../../..{target}");
    // Refused as a whole.
    for (name, bad) in [
        ("dots", Layer::new().file("../../../outside/dots", 0o644, b"x")),
        ("deep", Layer::new().file("a/../../../../outside/deep", 0o644, b"x")),
        ("hard", Layer::new().entry(EntryType::Link, "hard", &far, 0o644, 0, b"")),
    ] {
        let outcome = import(&bed, &Image::new(vec![bad.bytes()], &json!({})), name);
        assert_eq!(outcome.code, 1, "{name}");
        assert!(
            outcome.stderr.contains("outside") || outcome.stderr.contains(".."),
            "{}",
            outcome.stderr
        );
        assert!(outcome.stderr.starts_with("terrarium: "), "{}", outcome.stderr);
    }
    // Led back inside.
    for (name, link) in [("absolute", target.as_str()), ("relative", far.as_str())] {
        let through = Layer::new().symlink("door", link).file("door/through", 0o644, b"x").bytes();
        let _ = import(&bed, &Image::new(vec![through], &json!({})), name);
    }
    // A symlink that is replaced by a folder, and a file through a symlink of the same name.
    let twice = Layer::new().symlink("here", &target).file("here", 0o644, b"x").bytes();
    import(&bed, &Image::new(vec![twice], &json!({})), "twice").success();
    assert_eq!(files_in(&outside), Vec::<PathBuf>::new());
    // Nothing half-made is left to be used.
    assert_eq!(files_in(&bed.images().join("scratch")), Vec::<PathBuf>::new());
}

#[test]
fn what_is_not_what_its_digest_says_is_not_used() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let mut image = busybox();
    // The blob is the manifest's, and not the configuration's.
    image.layers[0].extend_from_slice(&[0; 512]);
    let layout = bed.folder().join("layout");
    image.write_layout(&layout, "localhost/bad:latest");
    let blobs = layout.join("blobs/sha256");
    let honest = busybox();
    let name = |bytes: &[u8]| digest(bytes).trim_start_matches("sha256:").to_owned();
    fs::rename(blobs.join(name(&image.layers[0])), blobs.join(name(&honest.layers[0]))).unwrap();
    let outcome = bed.run(["image".as_ref(), "import".as_ref(), layout.as_os_str()]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("its digest is"), "{}", outcome.stderr);
    assert_eq!(bed.run(["image", "list", "--quiet"]).success(), "");
    assert_eq!(files_in(&bed.images().join("layers")), Vec::<PathBuf>::new());
}

#[test]
fn a_hundred_containers_share_an_image_and_write_for_themselves() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    import(&bed, &busybox(), "shared").success();
    let names: Vec<String> = (0..100).map(|n| bed.unique(&format!("s{n}"))).collect();
    for name in &names {
        let script = format!("echo {name} >/mine; sleep 600");
        let args = ["run", "-d", "--name", name, "shared", "--", "/bin/sh", "-c", &script];
        bed.run(args).success();
    }
    for name in names.iter().step_by(33) {
        let read = bed.run(["exec", name, "/bin/sh", "-c", "cat /mine"]).success();
        assert_eq!(read.trim(), name);
    }
    assert_eq!(files_in(&bed.images().join("layers")).len(), 1);
    let written = files_in(&bed.images().join("containers"));
    assert_eq!(written.len(), 100);
    let refused = bed.run(["image", "remove", "shared"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("uses it"), "{}", refused.stderr);
    for name in &names {
        bed.run(["delete", "--force", name]).success();
    }
    assert_eq!(files_in(&bed.images().join("containers")), Vec::<PathBuf>::new());
    bed.run(["image", "remove", "shared"]).success();
    assert_eq!(files_in(&bed.images().join("layers")), Vec::<PathBuf>::new());
    assert_eq!(files_in(&bed.images().join("blobs/sha256")), Vec::<PathBuf>::new());
}

#[test]
fn images_without_containers_are_pruned_and_others_stay() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    import(&bed, &busybox(), "used").success();
    let other = Image::new(vec![Layer::new().file("x", 0o644, b"x").bytes()], &json!({}));
    import(&bed, &other, "unused").success();
    let name = bed.unique("user");
    bed.run(["run", "-d", "--name", &name, "used", "--", "/bin/sleep", "600"]).success();
    assert_eq!(bed.run(["image", "prune"]).success(), "");
    assert_eq!(bed.run(["image", "prune", "--all"]).success(), "localhost/unused:latest\n");
    assert_eq!(bed.run(["image", "list", "--quiet"]).success(), "localhost/used:latest\n");
    bed.run(["exec", &name, "/bin/echo"]).success();
    bed.run(["delete", "--force", &name]).success();
}

#[test]
fn errors_of_images_say_what_to_do() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let junk = bed.folder().join("junk");
    fs::write(&junk, "no archive").unwrap();
    let junk = junk.display().to_string();
    let refused = if Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        "is the registry's name right"
    } else {
        "are the certificate authorities installed?"
    };
    let cases: &[(&[&str], i32, &str)] = &[
        (&["run", "nosuch", "--", "sh"], 125, "terrarium pull"),
        (&["image", "inspect", "nosuch"], 1, "terrarium pull"),
        (&["image", "remove", "nosuch"], 1, "it is not here"),
        (&["image", "import", "/no/such/file"], 1, "No such file"),
        (&["image", "import", &junk, "x"], 1, "tar archive"),
        (&["image", "import", &junk, "UPPER"], 1, "UPPER"),
        (&["pull", "--plain-http", "127.0.0.1:1/x"], 1, refused),
    ];
    for (words, code, part) in cases {
        let outcome = bed.run(*words);
        assert_eq!(outcome.code, *code, "{words:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(part), "{words:?}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{words:?}: {}", outcome.stderr);
    }
}

#[test]
fn an_image_is_pulled_from_a_registry_and_an_interrupted_pull_goes_on() {
    require!(Root, Program("busybox"), Program("docker-registry"));
    let bed = TestBed::new();
    let registry = Registry::start(&bed);
    let image = busybox();
    registry.push(&image, "team/tool", "1");
    let name = format!("{}/team/tool:1", Registry::ADDRESS);

    // What an interrupted pull left.
    let partial = bed.images().join("partial");
    fs::create_dir_all(&partial).unwrap();
    let bytes = &image.layers[0];
    let file = partial.join(digest(bytes).trim_start_matches("sha256:"));
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(bed.run(["pull", &name]).success(), format!("{name}\n"));
    assert!(
        registry.log().contains(" 206 ") || registry.log().contains("status=206"),
        "{}",
        registry.log()
    );
    assert_eq!(run(&bed, &name, &[], &["/bin/echo", "pulled"]).success(), "pulled\n");
    assert_eq!(files_in(&partial), Vec::<PathBuf>::new());

    // What an interrupted pull left is damaged: said so, and right the next time.
    bed.run(["image", "remove", &name]).success();
    fs::write(&file, vec![b'x'; bytes.len() / 2]).unwrap();
    let outcome = bed.run(["pull", &name]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("try again"), "{}", outcome.stderr);
    assert_eq!(bed.run(["image", "list", "--quiet"]).success(), "");
    bed.run(["pull", &name]).success();

    let outcome = bed.run(["pull", &format!("{}/team/nosuch", Registry::ADDRESS)]);
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
}
