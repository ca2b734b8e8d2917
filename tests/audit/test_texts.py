from lab.audit.texts import audit_texts
from lab.corpus.toy import toy_texts


def test_texts_of_a_dataset_leave_others_to_train_references_on(tmp_path):
    found = audit_texts(tmp_path, "tiny")
    assert len(found.measured) > 40
    assert len(found.spare) > 100
    assert not set(found.measured) & set(found.spare)
    assert {*found.measured, *found.spare} <= set(toy_texts()[0])
    assert audit_texts(tmp_path, "tiny") == found
