import pytest
import torch

from vsgae.modules import AGGREGATIONS

TARGET = torch.tensor([0, 2, 0, 0, 2])


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_the_order_of_messages_does_not_matter_and_no_message_is_0(name):
    torch.manual_seed(0)
    aggregation, messages = AGGREGATIONS[name](4).double(), torch.randn(5, 4).double()
    expected = aggregation(messages, TARGET, 4)
    assert expected.shape == (4, 4)
    assert not expected[[1, 3]].any()
    order = torch.tensor([3, 4, 0, 2, 1])
    torch.testing.assert_close(aggregation(messages[order], TARGET[order], 4), expected)
    assert not aggregation(messages[:0], TARGET[:0], 4).any()


def test_each_is_what_its_name_says():
    messages = torch.tensor([[1.0, -2.0], [5.0, 0.0], [3.0, -4.0], [2.0, 0.0], [7.0, 1.0]])
    expected = {"sum": [[6, -6], [12, 1]], "mean": [[2, -2], [6, 0.5]], "max": [[3, 0], [7, 1]]}
    for name, rows in expected.items():
        assert AGGREGATIONS[name](2)(messages, TARGET, 3)[[0, 2]].tolist() == rows


def test_attention_is_a_mean_with_the_weights_of_a_softmax():
    attention = AGGREGATIONS["attention"](2)
    (vector,) = attention.parameters()
    torch.nn.init.constant_(vector, 1.0)
    messages = torch.tensor([[1.0, 0.5], [-1.0, 2.0]])  # scores 1.5 and -0.2 + 2, LeakyReLU's slope being 0.2
    first, second = torch.tensor([1.5, 1.8]).softmax(0)
    expected = first * messages[:1] + second * messages[1:]
    torch.testing.assert_close(attention(messages, torch.tensor([0, 0]), 1), expected)
