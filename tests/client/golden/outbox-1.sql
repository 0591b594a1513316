-- An outbox of format 1: it is opened for ever. Never change this file; a new format gets its own.
PRAGMA application_id = 1128485711;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE entries (
        number INTEGER PRIMARY KEY,
        command INTEGER NOT NULL,
        follows INTEGER,
        agent TEXT NOT NULL,
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        artifact BLOB NOT NULL,
        kind TEXT NOT NULL,
        content_type TEXT,
        body BLOB,
        base_version INTEGER,
        ttl_us INTEGER,
        index_fields TEXT,
        reason TEXT,
        queued_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        outcome TEXT,
        detail TEXT,
        version INTEGER,
        settled_at INTEGER
    );
INSERT INTO "entries" VALUES(1,2,NULL,'ann','["team", "a:b"]','plan',X'35C1A13E26245714AF1C75F5466A1BA4','write','application/json',NULL,3,NULL,NULL,NULL,1700000000000000,'done',NULL,NULL,4,1700000007000000);
INSERT INTO "entries" VALUES(2,16,1,'ann','["team", "a:b"]','plan',X'35C1A13E26245714AF1C75F5466A1BA4','write','application/json',X'7B2273746570223A327D',4,NULL,NULL,NULL,1700000001000000,'waiting',NULL,NULL,NULL,NULL);
INSERT INTO "entries" VALUES(3,6,NULL,'bob','["team", "a:b"]','notes',X'75194296FE1B5610AAF540C0A4AC58CF','write','application/json',X'227822',NULL,60000000,'["text"]','because',1700000002000000,'waiting',NULL,NULL,NULL,NULL);
INSERT INTO "entries" VALUES(4,8,3,'bob','["team", "a:b"]','notes',X'75194296FE1B5610AAF540C0A4AC58CF','delete',NULL,NULL,1,NULL,NULL,'tidy',1700000003000000,'waiting',NULL,NULL,NULL,NULL);
INSERT INTO "entries" VALUES(5,10,NULL,'zoë','["team", "a:b"]','gone',X'9535CCF66C805D948FD9C0033C4989D0','write','application/json',X'5B5D',0,NULL,NULL,NULL,1700000004000000,'conflict','version_conflict','the artifact exists at version 2',2,1700000008000000);
INSERT INTO "entries" VALUES(6,12,5,'zoë','["team", "a:b"]','gone',X'9535CCF66C805D948FD9C0033C4989D0','write','application/json',X'5B315D',1,NULL,NULL,NULL,1700000005000000,'conflict','follows_refused','it follows change 5 of the same artifact, which was refused',2,1700000009000000);
INSERT INTO "entries" VALUES(7,14,NULL,'zoë','["team", "a:b"]','big',X'36F59C89463C50D189D5C8A7686CE8C2','write','application/json',X'5B325D',7,NULL,NULL,NULL,1700000006000000,'failed','content_too_large','the body is too large',NULL,1700000010000000);
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('done',1);
INSERT INTO "meta" VALUES('log_id',X'4C4C4C4C4C4C4C4C4C4C4C4C4C4C4C4C');
INSERT INTO "meta" VALUES('numbers',8);
INSERT INTO "meta" VALUES('session_id',X'000102030405060708090A0B0C0D0E0F');
INSERT INTO "meta" VALUES('session_used',1);
INSERT INTO "meta" VALUES('workspace','w');
CREATE INDEX followers ON entries (follows) WHERE follows IS NOT NULL;
COMMIT;
