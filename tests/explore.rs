//! The page of `graphc explore` in a real browser, driven through the DevTools protocol. Skipped where there is
//! no Chromium. With `GRAPHC_SCREENSHOTS=DIR` it leaves pictures there.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Names that Chromium goes by.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Longest that the page may take for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A browser with one page.
struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    calls: u64,
    session: Option<String>,
    /// What the page complained about.
    errors: Vec<String>,
}

impl Browser {
    /// Starts one; `None`, with a message, if there is none.
    fn start(profile: &Path) -> Option<Self> {
        let there =
            |name: &&&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
        let Some(name) = BROWSERS.iter().find(there) else {
            eprintln!("skipped: there is no Chromium ({})", BROWSERS.join(", "));
            return None;
        };
        // The browser reads commands from file descriptor 3 and answers on 4, which the shell connects.
        let script = format!(
            "exec {name} --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
             --user-data-dir='{}' --remote-debugging-pipe about:blank 3<&0 4>&1 0</dev/null 1>&2",
            profile.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("a shell");
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser = Self { child, to, from, calls: 0, session: None, errors: Vec::new() };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Calls a method of the protocol; what happens meanwhile is noted.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let mut bytes = Vec::new();
            let n = self.from.read_until(0, &mut bytes).expect("the browser answers");
            assert!(n > 0, "the browser ended at {method}");
            bytes.pop();
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let bad = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => matches!(params["type"].as_str(), Some("error" | "warning")),
            Some("Log.entryAdded") => params["entry"]["level"] == "error",
            _ => false,
        };
        if bad {
            self.errors.push(params.to_string());
        }
    }

    /// The value of an expression, which may be a promise.
    fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    fn wait(&mut self, expression: &str) {
        let started = Instant::now();
        while self.evaluate(expression) != true {
            assert!(started.elapsed() < PATIENCE, "never: {expression}; {:?}", self.errors);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn open(&mut self, file: &Path) {
        self.call("Page.navigate", json!({ "url": format!("file://{}", file.display()) }));
        self.wait("document.documentElement?.dataset.ready === 'true'");
    }

    fn size(&mut self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Leaves a picture where the environment asks for some.
    fn picture(&mut self, name: &str) {
        let Some(dir) = std::env::var_os("GRAPHC_SCREENSHOTS") else { return };
        std::thread::sleep(Duration::from_millis(300));
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let path = PathBuf::from(dir).join(format!("{name}.png.base64"));
        std::fs::write(path, answer["data"].as_str().unwrap()).unwrap();
    }

    /// Types into the search field and takes the first that is found.
    fn search(&mut self, text: &str) {
        self.evaluate(&format!(
            "(() => {{ const s = document.getElementById('search'); s.focus(); s.value = '{text}'; \
             s.dispatchEvent(new Event('input')); }})()"
        ));
        self.wait("document.querySelectorAll('#hits li').length > 0");
        self.picture(&format!("search-{text}"));
        self.evaluate(
            "document.getElementById('search').dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' }))",
        );
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn report(dir: &Path, module: &Path, function: &str, arguments: &[&str]) -> PathBuf {
    let output = dir.join(format!("{}.html", module.file_stem().unwrap().display()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_graphc"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_CACHE_HOME", dir);
    command.arg("explore").arg(module).args(["--fn", function, "--seconds", "0.05", "-o"]).arg(&output);
    let out = command.args(arguments).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let bytes = std::fs::metadata(&output).unwrap().len();
    assert!(bytes < 5 << 20, "{}: {bytes} bytes", output.display());
    let page = std::fs::read_to_string(&output).unwrap();
    for outside in ["src=\"http", "href=\"http", "url(http", "import("] {
        assert!(!page.contains(outside), "{} needs the network: {outside}", output.display());
    }
    output
}

/// A module of five thousand nodes without scopes.
fn large_module(dir: &Path) -> PathBuf {
    let mut text = "graphc 1\nmodule @large\nfn @f(%x: f32[8]) {\n  %n0 = neg(%x) : f32[8]\n".to_owned();
    for i in 1..5000 {
        let op = if i % 3 == 0 { format!("add(%n{}, %x)", i - 1) } else { format!("tanh(%n{})", i - 1) };
        text.push_str(&format!("  %n{i} = {op} : f32[8]\n"));
    }
    text.push_str("  return %n4999\n}\n");
    let path = dir.join("large.gir");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_page_shows_graph_code_memory_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut browser) = Browser::start(&dir.path().join("profile")) else { return };
    for (module, function, node) in
        [("gpt", "train_step", "dot_general"), ("lstm", "train_step", "scan"), ("cnn", "loss.grad", "a0")]
    {
        let module_path = PathBuf::from(format!("examples/{module}.gir"));
        let file = report(dir.path(), &module_path, function, &[]);
        browser.size(1440, 900, "light");
        browser.open(&file);
        browser.picture(&format!("{module}-graph"));
        // Both parts of a step, boxes with measured kernels.
        assert!(browser.evaluate("document.querySelectorAll('.cluster.p0, .box.p0').length > 0") == true);
        assert!(browser.evaluate("document.querySelectorAll('.cluster.p1, .box.p1').length > 0") == true);
        // Search finds a node, and selecting it shows its code.
        browser.search(node);
        browser.wait("document.querySelectorAll('.box.selected').length === 1");
        browser.wait("!document.getElementById('drawer').hidden");
        let shown = browser.evaluate("document.querySelector('#inspector h2').textContent");
        let wanted = if node == "a0" { "convolution" } else { node };
        assert!(shown.as_str().unwrap().contains(wanted), "{module}: {shown}");
        browser.picture(&format!("{module}-node"));
        // A click on a kernel shows all of its forms.
        browser.evaluate(
            "document.querySelector('.box.kernel').dispatchEvent(new MouseEvent('click', { bubbles: true }))",
        );
        browser.wait("/\\bret\\b/.test(document.querySelector('[data-form=asm] pre')?.textContent ?? '')");
        for form in ["ir", "vector"] {
            let text = browser.evaluate(&format!("document.querySelector('[data-form={form}]').textContent"));
            assert!(text.as_str().unwrap().contains("kernel"), "{module} {form}: {text}");
        }
        for (tab, shows) in [("memory", ".buffer"), ("time", "#charts tbody tr")] {
            browser.evaluate(&format!("document.querySelector('[data-tab={tab}]').click()"));
            browser.wait(&format!("document.querySelectorAll('{shows}').length > 3"));
            browser.picture(&format!("{module}-{tab}"));
        }
        browser.evaluate("document.querySelector('[data-tab=graph]').click()");
        // Every stage can be shown, with what it changed.
        let stages =
            browser.evaluate("document.querySelectorAll('#pipeline button').length").as_u64().unwrap();
        assert!(stages > 3, "{module}: {stages}");
        browser.evaluate(
            "[...document.querySelectorAll('#pipeline button')].find(b => /simplify/.test(b.textContent)).click()",
        );
        browser.wait(
            "document.getElementById('busy').hidden && document.querySelectorAll('.box.changed').length > 0",
        );
        browser.picture(&format!("{module}-pass"));
        browser.size(1024, 720, "dark");
        browser.open(&file);
        browser.search(node);
        browser.wait("document.querySelectorAll('.box.selected').length === 1");
        let light = "getComputedStyle(document.body).backgroundColor";
        let before = browser.evaluate(light);
        browser.picture(&format!("{module}-dark"));
        browser.evaluate("document.getElementById('theme').click()");
        assert_ne!(browser.evaluate(light), before, "the button changes the theme");
        browser.evaluate("localStorage.clear()");
    }
    // Many nodes, none in a scope.
    let file = report(dir.path(), &large_module(dir.path()), "f", &[]);
    browser.size(1440, 900, "light");
    browser.open(&file);
    let started = Instant::now();
    browser.evaluate("document.querySelector('#pipeline button').click()");
    browser.wait("document.getElementById('busy').hidden && document.querySelectorAll('.box').length > 5");
    println!("5,000 nodes are laid out in {:?}", started.elapsed());
    browser.search("n4321");
    browser.wait("document.querySelectorAll('.box.selected').length === 1");
    browser.picture("large");
    assert!(browser.errors.is_empty(), "{:?}", browser.errors);
}
